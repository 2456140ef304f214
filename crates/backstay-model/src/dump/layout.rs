//! How a shelf is ordered: where each tier's dumps lie, and what lies beside them.
//!
//! A layout is what a house's scripts and people expect to find. The ready ones
//! ([`Layout::preset`]) are those of known sets of scripts, to the letter, so that the
//! old files and the new ones stand in one row. Paths are relative to the directory that
//! holds one engine's dumps. Refuses, with [`Layout::check`], names under which two files
//! would meet.

use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZone;

use super::retention::DumpKeep;
use super::template::{Fields, Matched, NameTemplate, PointerName, is_extension};
use super::{DumpContent, DumpShape, Tier, UnknownWord};
use crate::error::{Classified, ErrorKind};
use crate::id::InstanceId;
use crate::record::EngineKind;

mod preset;

/// Beside a dump, whatever the layout: its authentication.
const AUTHENTICATION_SUFFIX: &str = ".hmac";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("the {one} and the {other} dump of one day would both be called {path:?}")]
    TiersMeet { one: Tier, other: Tier, path: String },
    #[error("the pointer would take the name {0:?} of a dump")]
    PointerMeets(String),
    #[error("{0:?} is not the end of a sidecar's name, such as \".meta.json\"")]
    Sidecar(String),
    #[error("{0:?} is not a relative directory without hidden and empty parts")]
    Reports(String),
    #[error("{0:?} is not an extension, such as \"sql.gz\"")]
    Extension(String),
}

impl Classified for LayoutError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hints(&self) -> Vec<String> {
        vec![match self {
            LayoutError::TiersMeet { other, .. } => format!("put {{tier}} into `{other}` of the layout"),
            LayoutError::PointerMeets(_) => {
                "set `dump.pointer` to \"latest_{database}.{ext}\", or to \"none\"".into()
            }
            LayoutError::Sidecar(_) => "set `sidecar` to \".meta.json\"".into(),
            LayoutError::Reports(_) => "set `reports` to \"verification\"".into(),
            LayoutError::Extension(_) => {
                "leave `extension` out, and it follows the format, compression and encryption".into()
            }
        }]
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Every dump lies here first.
    pub daily: NameTemplate,
    /// The second name of a Sunday's dump; `None`: it gets none.
    pub weekly: Option<NameTemplate>,
    /// The second name of the dump of a first of the month.
    pub monthly: Option<NameTemplate>,
    /// What a dump is called when the name of the days is taken for the rest of the day, in
    /// this order: in a house whose names have no time of day, one that a person takes.
    pub by_hand: Vec<NameTemplate>,
    /// The link to the newest dump.
    pub pointer: Option<PointerName>,
    /// With its dot: `.meta.json`.
    pub sidecar: String,
    /// The directory of the reports of verification.
    pub reports: String,
    /// In the place of what [`DumpShape::extension`] says, for a house whose names say
    /// something else of the content.
    pub extension: Option<String>,
    /// What a dump is made of where nothing else is asked for.
    pub shape: DumpShape,
    /// What stays where nothing else is asked for.
    pub keep: DumpKeep,
}

/// Where the reports of one verification go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportPaths {
    pub json: String,
    pub text: String,
    /// The link to the newest in JSON.
    pub latest: String,
}

impl Layout {
    /// The names that [`Layout::preset`] knows.
    pub const PRESETS: [&str; 7] = preset::NAMES;

    /// A ready layout by its name. `plain` keeps everything and stands wherever nobody
    /// chose another.
    pub fn preset(name: &str) -> Result<Layout, UnknownWord> {
        preset::of(name)
    }

    /// The same for the dumps of another engine.
    pub fn preset_of_engine(name: &str, engine: EngineKind) -> Result<Layout, UnknownWord> {
        preset::of_engine(name, engine)
    }

    /// Refuses a layout in which files of different meaning would meet.
    pub fn check(&self) -> Result<(), LayoutError> {
        let suffix = self.sidecar.strip_prefix('.').filter(|words| is_extension(words));
        if suffix.is_none() || self.sidecar == AUTHENTICATION_SUFFIX {
            return Err(LayoutError::Sidecar(self.sidecar.clone()));
        }
        let visible = |part: &str| !part.is_empty() && !part.starts_with('.');
        let strange = |c: char| c.is_control() || c == '\\';
        if !self.reports.split('/').all(visible) || self.reports.contains(strange) {
            return Err(LayoutError::Reports(self.reports.clone()));
        }
        if let Some(extension) = self.extension.as_ref().filter(|extension| !is_extension(extension)) {
            return Err(LayoutError::Extension(extension.clone()));
        }
        self.check_names()
    }

    /// Over one dump that is in every tier, the first of September 2024 being a Sunday.
    fn check_names(&self) -> Result<(), LayoutError> {
        let Ok(time) = date(2024, 9, 1).at(2, 0, 0, 0).to_zoned(TimeZone::UTC) else { return Ok(()) };
        let Ok(instance) = "main".parse::<InstanceId>() else { return Ok(()) };
        let ext = self.extension(&self.shape);
        let fields = |tier| Fields {
            database: Some("orders"),
            instance: &instance,
            tier,
            ext: &ext,
            time: time.timestamp(),
        };
        let paths: Vec<(Tier, String)> =
            Tier::ALL.into_iter().filter_map(|tier| Some((tier, self.path(&fields(tier))?))).collect();
        for (at, (other, path)) in paths.iter().enumerate() {
            if let Some((one, _)) = paths[..at].iter().find(|(_, earlier)| earlier == path) {
                return Err(LayoutError::TiersMeet { one: *one, other: *other, path: path.clone() });
            }
        }
        match self.pointer_path(&fields(Tier::Daily)) {
            Some(pointer) if self.locate(&pointer).is_some() => Err(LayoutError::PointerMeets(pointer)),
            _ => Ok(()),
        }
    }

    pub fn template(&self, tier: Tier) -> Option<&NameTemplate> {
        match tier {
            Tier::Daily => Some(&self.daily),
            Tier::Weekly => self.weekly.as_ref(),
            Tier::Monthly => self.monthly.as_ref(),
        }
    }

    /// The tiers of this layout to which a dump of this time belongs; the days first.
    pub fn tiers(&self, taken_at: Timestamp) -> Vec<Tier> {
        Tier::of(taken_at).into_iter().filter(|tier| self.template(*tier).is_some()).collect()
    }

    /// What stands for `{ext}`.
    pub fn extension(&self, shape: &DumpShape) -> String {
        self.extension.clone().unwrap_or_else(|| shape.extension())
    }

    /// The path of a dump in the tier of the fields; `None` when the layout has no such.
    pub fn path(&self, fields: &Fields<'_>) -> Option<String> {
        Some(self.template(fields.tier)?.render(fields))
    }

    /// Everything that a dump can be called first, as it is among the days or by hand.
    pub fn first_paths(&self, fields: &Fields<'_>) -> Vec<String> {
        std::iter::once(&self.daily).chain(&self.by_hand).map(|name| name.render(fields)).collect()
    }

    /// The layouts in which a dump has one of the names by hand and no other.
    pub fn layouts_by_hand(&self) -> impl Iterator<Item = Layout> + '_ {
        let plain = |name: &NameTemplate| Layout {
            daily: name.clone(),
            weekly: None,
            monthly: None,
            by_hand: Vec::new(),
            ..self.clone()
        };
        self.by_hand.iter().map(plain)
    }

    pub fn pointer_path(&self, fields: &Fields<'_>) -> Option<String> {
        Some(self.pointer.as_ref()?.render(fields))
    }

    /// Whether the pointer may lead to a dump of this content. A runbook restores what it
    /// leads to, so it is never a part of a database; and where its name says no database,
    /// it is that of the house, which `own` is, and not the roles either.
    pub fn points_to(&self, content: &DumpContent, own: Option<&str>) -> bool {
        let is_named = self.pointer.as_ref().is_some_and(PointerName::tells_databases_apart);
        match content {
            DumpContent::Parts { .. } => false,
            DumpContent::Globals => is_named,
            DumpContent::Database { database } => is_named || own == Some(database),
            DumpContent::Cluster { .. } | DumpContent::Server => true,
        }
    }

    /// Whether a path is that of the pointer, to whichever database or format.
    pub fn is_pointer(&self, path: &str) -> bool {
        self.pointer.as_ref().is_some_and(|pointer| pointer.matches(path))
    }

    pub fn sidecar_path(&self, dump: &str) -> String {
        format!("{dump}{}", self.sidecar)
    }

    /// The dump to which a sidecar belongs; `None` for what is no sidecar.
    pub fn dump_of_sidecar<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_suffix(self.sidecar.as_str()).filter(|dump| !dump.is_empty() && !dump.ends_with('/'))
    }

    /// Reads a path by the templates; the tier is always set. What lies beside a dump
    /// is no dump.
    pub fn locate(&self, path: &str) -> Option<Matched> {
        if path.ends_with(&self.sidecar) || path.ends_with(AUTHENTICATION_SUFFIX) {
            return None;
        }
        // The days last: `{database}_{time}` could also read the name of a week's dump.
        let in_tiers = Tier::ALL.into_iter().rev().find_map(|tier| {
            let matched = self.template(tier)?.matches(path)?;
            let same = matched.tier.is_none_or(|written| written == tier);
            same.then_some(Matched { tier: Some(tier), ..matched })
        });
        let by_hand = || self.by_hand.iter().find_map(|name| name.matches(path));
        in_tiers.or_else(|| {
            by_hand().map(|matched| Matched { tier: Some(Tier::Daily), is_by_hand: true, ..matched })
        })
    }

    /// The reports of a verification that ended at this time, by its day in UTC.
    pub fn report_paths(&self, at: Timestamp) -> ReportPaths {
        let directory = &self.reports;
        let day = at.strftime("%Y%m%d");
        ReportPaths {
            json: format!("{directory}/verification_report_{day}.json"),
            text: format!("{directory}/verification_report_{day}.txt"),
            latest: format!("{directory}/latest_verification.json"),
        }
    }
}

#[cfg(test)]
mod tests;
