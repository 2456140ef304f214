//! The manual page and the completion scripts, made from the arguments themselves.

use backstay_model::Fault;
use clap::CommandFactory;

use super::DONE;
use crate::args::Arguments;
use crate::error::Error;
use crate::render::Output;

pub fn completions(output: Output, shell: clap_complete::Shell) -> Result<u8, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "backstay", &mut script);
    output.print(&String::from_utf8_lossy(&script)).map_err(Error::Print)?;
    Ok(DONE)
}

/// One page: the program, then each verb.
pub fn man(output: Output) -> Result<u8, Fault> {
    let mut command = Arguments::command();
    command.build();
    let mut page = Vec::new();
    render(&command, &mut page).map_err(Error::Print)?;
    output.print(&String::from_utf8_lossy(&page)).map_err(Error::Print)?;
    Ok(DONE)
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    clap_mangen::Man::new(command.clone()).render(page)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let man = clap_mangen::Man::new(verb.clone());
        let name = verb.get_display_name().unwrap_or(verb.get_name()).replace('-', " ");
        page.extend_from_slice(format!(".SH \"{}\"\n", name.to_uppercase()).as_bytes());
        man.render_synopsis_section(&mut *page)?;
        man.render_description_section(&mut *page)?;
        if verb.get_arguments().any(|argument| !argument.is_global_set() && !argument.is_hide_set()) {
            man.render_options_section(&mut *page)?;
        }
        for below in verb.get_subcommands().filter(|below| below.get_name() != "help") {
            clap_mangen::Man::new(below.clone()).render_synopsis_section(&mut *page)?;
            clap_mangen::Man::new(below.clone()).render_description_section(&mut *page)?;
        }
    }
    Ok(())
}
