//! Check: can an instance be reached, with the rights that a backup needs.

use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::facts::{self, Privileges, ServerFacts};
use backstay_engine::postgres::local::refuse_foreign;
use backstay_engine::postgres::tablespaces;
use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::facts::{Role, ServerFacts as RedisFacts};
use backstay_engine::redis::saved;
use backstay_engine::redis::source::{self, Choice};
use backstay_model::Finding;
use serde::Serialize;

use crate::context::off_thread;
use crate::error::Result;
use crate::instance::Instance;
use crate::status::with_causes;
use crate::way::Way;

#[derive(Debug, Clone, Serialize)]
pub struct InstanceCheck {
    pub way: Way,
    pub server: ServerFacts,
    pub findings: Vec<Finding>,
}

impl InstanceCheck {
    /// One line for a person.
    pub fn describe(&self) -> String {
        let server = &self.server;
        let role = if server.in_recovery { "standby" } else { "primary" };
        let way = match self.way {
            Way::Local => "its data directory can be read",
            Way::Remote => "backups come over the network",
        };
        format!("PostgreSQL {}, {role}, {way}", server.version)
    }
}

/// The same of Redis, whose rights show when they are needed. Looks at the server that a backup would be
/// taken from.
pub async fn redis(settings: &RedisSettings) -> Result<String> {
    let mut chosen = source::choose(settings).await?;
    let server = RedisFacts::ask(&mut chosen.connection).await?;
    let role = match server.role {
        Role::Master => "master",
        Role::Replica => "replica",
    };
    let place = match chosen.choice {
        Choice::Only => String::new(),
        Choice::Replica | Choice::Primary => format!(" at {}", chosen.connection.server()),
    };
    let keys = server.keys();
    let findings: String = chosen.findings.iter().map(|finding| format!("; {}", finding.message)).collect();
    let way = match &settings.data_directory {
        None => String::new(),
        Some(directory) => match saved::find(&mut chosen.connection, directory).await {
            Ok(_) => ", its data directory can be read".to_owned(),
            Err(error) if saved::is_of_the_way(&error) => {
                format!(", bases come over the network: {}", with_causes(&error))
            }
            Err(error) => return Err(error.into()),
        },
    };
    Ok(format!("{} {}, {role}{place}, {keys} keys{way}{findings}", server.product.name(), server.version))
}

/// Connects, and refuses when a right is missing or the data directory is another's.
pub async fn run(instance: &Instance) -> Result<InstanceCheck> {
    let (way, mut findings) = Way::choose(&instance.id, instance.postgres()?);
    let (server, session) = ask_server(instance, way).await?;
    if way == Way::Remote {
        findings.extend(Privileges::read(&session).await?.wanting_remote(&server));
    }
    Ok(InstanceCheck { way, server, findings })
}

/// What the server says of itself, when the role may do what this way needs.
pub(crate) async fn ask_server(instance: &Instance, way: Way) -> Result<(ServerFacts, Session)> {
    let address = instance.postgres()?.address()?;
    let session = Session::open(&address).await?;
    let privileges = Privileges::read(&session).await?;
    match way {
        Way::Local => privileges.require_local()?,
        Way::Remote => privileges.require_remote()?,
    }
    let server = facts::read(&session, &address).await?;
    tablespaces::refuse_inside(&server.tablespaces)?;
    if way == Way::Local
        && let Some(directory) = instance.postgres()?.data_directory.clone()
    {
        let server = server.clone();
        off_thread(move || Ok(refuse_foreign(&directory, &server)?)).await?;
    }
    Ok((server, session))
}
