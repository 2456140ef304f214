//! An address that names several servers, and the one that is meant by it.
//!
//! A dump and a restore of a dump are several connections, some of them of other programs:
//! a snapshot of one server is nothing to another, and what is looked at must be what is
//! written to. Invariant: they all have an address with one host. The first that answers
//! and is what `target_session_attrs` asks for is taken, in the order of the address, also
//! where it asks for any order.

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::connect::Session;
use super::settings::Address;
use crate::Result;

impl Address {
    /// The one server of it that is to be spoken to from now on.
    pub async fn settled(&self) -> Result<Address> {
        let mut each = self.each();
        let Some(last) = each.pop() else { return Ok(self.clone()) };
        for address in each {
            if Session::open(&address).await.is_ok() {
                return Ok(address);
            }
        }
        // Of the last nobody needs to ask beforehand: the next connection says what is wrong.
        Ok(last)
    }

    /// The same address with each of its hosts; none when it has only one.
    fn each(&self) -> Vec<Address> {
        let (hosts, addresses, ports) =
            (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        let number = hosts.len().max(addresses.len());
        if number < 2 {
            return Vec::new();
        }
        let one = |at: usize| {
            let mut config = without_hosts(&self.config);
            match hosts.get(at) {
                Some(Host::Tcp(name)) => {
                    config.host(name);
                }
                Some(Host::Unix(directory)) => {
                    config.host_path(directory);
                }
                None => {}
            }
            if let Some(address) = addresses.get(at) {
                config.hostaddr(*address);
            }
            if let Some(port) = ports.get(at).or(ports.first().filter(|_| ports.len() == 1)) {
                config.port(*port);
            }
            Address { config, ..self.clone() }
        };
        (0..number).map(one).collect()
    }
}

fn without_hosts(config: &Config) -> Config {
    let mut new = Config::new();
    if let Some(user) = config.get_user() {
        new.user(user);
    }
    if let Some(password) = config.get_password() {
        new.password(password);
    }
    if let Some(database) = config.get_dbname() {
        new.dbname(database);
    }
    if let Some(options) = config.get_options() {
        new.options(options);
    }
    if let Some(name) = config.get_application_name() {
        new.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        new.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        new.tcp_user_timeout(*limit);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        new.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        new.keepalives_retries(retries);
    }
    new.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    new
}

#[cfg(test)]
mod tests {
    use super::super::PostgresSettings;

    #[test]
    fn an_address_of_several_servers_is_taken_apart_with_all_that_it_says() {
        let settings = PostgresSettings {
            url:
                "postgresql://b@one:5433,%2Frun%2Fpg:5434/app?target_session_attrs=read-write&sslmode=require\
                  &load_balance_hosts=random&connect_timeout=3"
                    .into(),
            ..PostgresSettings::default()
        };
        let address = settings.address().unwrap();
        let each = address.each();
        let places: Vec<String> = each.iter().map(|one| one.describe()).collect();
        assert_eq!(places, ["one:5433", "/run/pg/.s.PGSQL.5434"]);
        for one in &each {
            let (one, all) = (&one.config, &address.config);
            assert_eq!(one.get_target_session_attrs(), all.get_target_session_attrs());
            assert_eq!((one.get_dbname(), one.get_user()), (Some("app"), Some("b")));
            assert_eq!(one.get_connect_timeout(), all.get_connect_timeout());
            assert_eq!(one.get_ssl_mode(), all.get_ssl_mode());
        }
        let shared = PostgresSettings { url: "host=a,b port=7 user=b".into(), ..PostgresSettings::default() };
        let places: Vec<String> = shared.address().unwrap().each().iter().map(|one| one.describe()).collect();
        assert_eq!(places, ["a:7", "b:7"]);
        let one = PostgresSettings { url: "host=a user=b".into(), ..PostgresSettings::default() };
        assert!(one.address().unwrap().each().is_empty());
    }
}
