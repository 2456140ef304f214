//! `backstay key`: the keys that open the repository.

use std::io::BufRead;
use std::path::Path;

use backstay_model::{Fault, Secret};
use backstay_ops::Context;
use backstay_ops::kit::KitReport;
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
    let kit = session.config.recovery_kit();
    match verb {
        KeyVerb::List => {}
        KeyVerb::Kit { to } => {
            let directory = to.as_ref().unwrap_or(&kit);
            let written = backstay_ops::kit::write(&context, directory).await?;
            let report = keys::Kit {
                recovery_kit: directory.clone(),
                files: written.files,
                findings: written.findings,
            };
            output.warnings(&report.findings);
            output.result(&report, |_| keys::kit(&report)).map_err(Error::Print)?;
            return Ok(DONE);
        }
        KeyVerb::Add(arguments) => {
            add(session, &context, arguments).await?;
            note_kit(session, &backstay_ops::kit::renew(&context, &kit, &[]).await);
        }
        KeyVerb::Remove { name } => {
            let gone = backstay_ops::key::remove(&context, name).await?;
            output.note(&format!("removed the key {name}; `backstay key rotate` also stops what it opened before from opening new backups"));
            note_kit(session, &backstay_ops::kit::renew(&context, &kit, &gone).await);
        }
        KeyVerb::Rotate(arguments) => {
            let rotated = rotate(session, &context, arguments).await?;
            let kit = backstay_ops::kit::renew(&context, &kit, &rotated.gone).await;
            output.warnings(&kit.findings);
            let report = keys::Rotated { rotated, kit };
            output.result(&report, |output| keys::rotated(output, &report)).map_err(Error::Print)?;
            return Ok(DONE);
        }
    }
    let slots = backstay_ops::key::list(&context).await?;
    output.result(&slots, |_| keys::list(&slots)).map_err(Error::Print)?;
    Ok(DONE)
}

/// Their result is the list of keys, so what became of the kit is told beside it.
fn note_kit(session: &Session, kit: &KitReport) {
    if let Some(directory) = &kit.recovery_kit {
        session.output.note(&keys::renewed(directory));
    }
    session.output.warnings(&kit.findings);
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
        session.output.warnings(&[finding]);
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
