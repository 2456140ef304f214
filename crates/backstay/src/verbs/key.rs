//! `backstay key`: the keys that open the repository.

use std::io::BufRead;
use std::path::Path;

use backstay_model::{Fault, Secret};
use backstay_ops::Context;
use backstay_repo::key::{KeySecret, NewSlot, create_key_file, read_key_file};

use super::DONE;
use crate::args::{KeyAddArguments, KeyRotateArguments, KeyVerb};
use crate::error::Error;
use crate::render::keys;
use crate::session::Session;

/// Shorter ones are guessed, whatever the derivation costs the attacker.
const PASSPHRASE_LEAST: usize = 12;

pub async fn run(session: &Session, verb: &KeyVerb) -> Result<u8, Fault> {
    let context = session.context().await?;
    let output = session.output;
    match verb {
        KeyVerb::List => {}
        KeyVerb::Add(arguments) => add(session, &context, arguments).await?,
        KeyVerb::Remove { name } => {
            backstay_ops::key::remove(&context, name).await?;
            output.note(&format!("removed the key {name}; `backstay key rotate` also stops what it opened before from opening new backups"));
        }
        KeyVerb::Rotate(arguments) => {
            let report = rotate(session, &context, arguments).await?;
            output.result(&report, |output| keys::rotated(output, &report)).map_err(Error::Print)?;
            return Ok(DONE);
        }
    }
    let slots = backstay_ops::key::list(&context).await?;
    output.result(&slots, |_| keys::list(&slots)).map_err(Error::Print)?;
    Ok(DONE)
}

async fn add(session: &Session, context: &Context, arguments: &KeyAddArguments) -> Result<(), Fault> {
    let unlock = session.key()?.ok_or(backstay_ops::Error::NoKeys)?;
    match &arguments.file {
        Some(path) => {
            let secret = create_key_file(path)?;
            let slot = NewSlot { slot: arguments.name.clone(), secret };
            if let Err(error) = backstay_ops::key::add(context, &unlock, slot).await {
                // Written a moment ago, and it opens nothing.
                let _: std::io::Result<()> = std::fs::remove_file(path);
                return Err(error.into());
            }
            session.output.note(&format!("wrote the key file {}", path.display()));
        }
        None => {
            let secret = passphrase()?;
            let slot = NewSlot { slot: arguments.name.clone(), secret };
            backstay_ops::key::add(context, &unlock, slot).await?;
        }
    }
    Ok(())
}

/// Every slot that stays needs its secret again: those of `--key NAME=FILE`, and
/// the one of the configuration for the one slot that is left.
async fn rotate(
    session: &Session,
    context: &Context,
    arguments: &KeyRotateArguments,
) -> Result<backstay_ops::key::RotateReport, Fault> {
    let mut keep = Vec::new();
    for (name, file) in &arguments.key {
        keep.push(NewSlot { slot: name.clone(), secret: key_file(session, file)? });
    }
    if let Some(name) = &arguments.passphrase {
        keep.push(NewSlot { slot: name.clone(), secret: passphrase()? });
    }
    let unlock = session.key()?.ok_or(backstay_ops::Error::NoKeys)?;
    let kind = unlock.kind();
    let mut unnamed = backstay_ops::key::slots_of_kind(context, kind).await?;
    unnamed.retain(|name| !arguments.drop.contains(name) && !keep.iter().any(|kept| kept.slot == *name));
    match unnamed.as_slice() {
        [] => {}
        [one] => keep.push(NewSlot { slot: one.clone(), secret: unlock }),
        several => {
            return Err(Error::KeysUnnamed { names: several.to_vec() }.into());
        }
    }
    Ok(backstay_ops::key::rotate(context, &keep, &arguments.drop).await?)
}

fn key_file(session: &Session, path: &Path) -> Result<KeySecret, Fault> {
    let (secret, exposed) = read_key_file(path)?;
    if let Some(finding) = exposed {
        session
            .output
            .note(&format!("warning: {}: {}; {}", finding.subject, finding.message, finding.remedy));
    }
    Ok(secret)
}

/// One line of standard input.
fn passphrase() -> Result<KeySecret, Error> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|source| Error::Passphrase { source })?;
    let text = line.trim_end_matches(['\n', '\r']);
    let length = text.chars().count();
    if length < PASSPHRASE_LEAST {
        return Err(Error::PassphraseShort { length, least: PASSPHRASE_LEAST });
    }
    Ok(KeySecret::Passphrase(Secret::new(text)))
}
