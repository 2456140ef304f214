//! The address of a server, as libpq wants it.
//!
//! Everything but the password stands in one connection string, because only there
//! the limits can be set that end a child whose server went away without a word.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio_postgres::config::{ChannelBinding, Host, TargetSessionAttrs};

use super::super::settings::Address;
use crate::tls::TlsMode;
use crate::{Error, Result};

/// A server that answers nothing for about two minutes is gone.
const KEEPALIVE: [(&str, &str); 3] =
    [("keepalives_idle", "60"), ("keepalives_interval", "15"), ("keepalives_count", "4")];

/// Certificates of the operating system, for which libpq has no word before version 16.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Takes what would be meant for another connection out of a child's environment.
pub(super) fn forget(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
}

pub(super) fn apply(command: &mut Command, address: &Address, options: Option<&str>) -> Result<()> {
    command.arg(format!("--dbname={}", connection_string(address, options)?));
    if let Some(password) = &address.password {
        command.env("PGPASSWORD", password.reveal());
    }
    Ok(())
}

fn connection_string(address: &Address, options: Option<&str>) -> Result<String> {
    let config = &address.config;
    let listed = |values: Vec<String>| (!values.is_empty()).then(|| values.join(","));
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(directory) => directory.display().to_string(),
    });
    let addresses = config.get_hostaddrs().iter().map(ToString::to_string);
    let ports = config.get_ports().iter().map(ToString::to_string);
    let given = config.get_options().filter(|given| !given.trim().is_empty());
    let options: Vec<&str> = given.into_iter().chain(options).collect();
    let mut pairs = vec![
        ("host", listed(hosts.collect())),
        ("hostaddr", listed(addresses.collect())),
        ("port", listed(ports.collect())),
        ("user", Some(address.user.clone())),
        ("dbname", Some(address.database().to_owned())),
        ("sslmode", Some(address.tls.name().to_owned())),
        ("sslrootcert", roots(address)?.map(|path| path.display().to_string())),
        ("connect_timeout", Some(address.connect_limit.as_secs().max(1).to_string())),
        ("application_name", Some("backstay".to_owned())),
        ("options", (!options.is_empty()).then(|| options.join(" "))),
        (
            "channel_binding",
            match config.get_channel_binding() {
                ChannelBinding::Disable => Some("disable".to_owned()),
                ChannelBinding::Require => Some("require".to_owned()),
                _ => None,
            },
        ),
        (
            "target_session_attrs",
            match config.get_target_session_attrs() {
                TargetSessionAttrs::ReadWrite => Some("read-write".to_owned()),
                TargetSessionAttrs::ReadOnly => Some("read-only".to_owned()),
                _ => None,
            },
        ),
    ];
    pairs.extend(KEEPALIVE.map(|(key, value)| (key, Some(value.to_owned()))));
    let written = pairs.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", quoted(&value?))));
    Ok(written.collect::<Vec<_>>().join(" "))
}

fn roots(address: &Address) -> Result<Option<PathBuf>> {
    if let Some(path) = &address.root_certificate {
        return Ok(Some(path.clone()));
    }
    match address.tls {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Ok(None),
        TlsMode::VerifyCa | TlsMode::VerifyFull => {
            let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
            let usual = SYSTEM_ROOTS.iter().map(PathBuf::from);
            let found = named.into_iter().chain(usual).find(|path: &PathBuf| Path::is_file(path));
            found.map(Some).ok_or_else(|| Error::Setting {
                setting: "ssl_root_certificate",
                reason: "is not set, and the operating system has no file of certificates".to_owned(),
            })
        }
    }
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use backstay_model::Secret;

    use super::*;
    use crate::postgres::PostgresSettings;

    #[test]
    fn the_password_is_in_the_environment_of_the_child_and_nowhere_else() {
        let settings = PostgresSettings {
            url: "postgresql://b@db:5433/app?sslmode=require".into(),
            password: Some(Secret::new("hunter2")),
            ..PostgresSettings::default()
        };
        let mut command = Command::new("pg_dump");
        apply(&mut command, &settings.address().unwrap(), None).unwrap();
        let arguments = format!("{:?}", command.get_args().collect::<Vec<_>>());
        assert!(!arguments.contains("hunter2"), "{arguments}");
        let password = command.get_envs().find(|(name, _)| *name == "PGPASSWORD").unwrap().1;
        assert_eq!(password.unwrap(), "hunter2");
    }

    #[test]
    fn an_address_is_the_same_to_libpq() {
        let settings = PostgresSettings {
            url: "host=/run/pg,db port=5433,5434 user='o''b' dbname='it\\'s' options='-c geqo=off' \
                  target_session_attrs=read-write"
                .replace("''", "\\'"),
            ..PostgresSettings::default()
        };
        let text =
            connection_string(&settings.address().unwrap(), Some("-c session_replication_role=replica"));
        assert_eq!(
            text.unwrap(),
            "host='/run/pg,db' port='5433,5434' user='o\\'b' dbname='it\\'s' sslmode='prefer' \
             connect_timeout='10' application_name='backstay' \
             options='-c geqo=off -c session_replication_role=replica' target_session_attrs='read-write' \
             keepalives_idle='60' keepalives_interval='15' keepalives_count='4'"
        );
    }
}
