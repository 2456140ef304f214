//! Running the programs that chores are made of.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The directory of the workspace, wherever the chore was called from.
pub fn project() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The `cargo` that runs this chore.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(project());
    command
}

/// Shows a command, runs it with our own input and output, and insists that it succeeds.
pub fn show_and_run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", line_of(command));
    let status = command.status().with_context(|| format!("run {}", name_of(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line_of(command));
    }
    Ok(())
}

/// Runs a command in silence; what it wrote is shown only when it fails.
pub fn run_quietly(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("run {}", name_of(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "`{}` ended with {}\n{text}{}",
            line_of(command),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// Where a program is, looking as a shell does.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Root's programs are not in every user's path.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The command as one would type it.
pub fn line_of(command: &Command) -> String {
    let mut line = name_of(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(&argument.to_string_lossy()));
    }
    line
}

/// One word as a shell takes it.
pub fn quoted(text: &str) -> Cow<'_, str> {
    let plain =
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c));
    if plain { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")).into() }
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = if program.is_absolute() {
        program.file_name().unwrap_or(program.as_os_str())
    } else {
        program.as_os_str()
    };
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/usr/bin/psql");
        command.args(["-c", "SELECT 'x'", "--port=1", ""]);
        assert_eq!(line_of(&command), r"psql -c 'SELECT '\''x'\''' --port=1 ''");
    }
}
