//! The names of dumps that are about to be taken, before the first byte of any.
//!
//! Refuses a run in which two dumps would meet, or one would meet what lies there: a
//! dump that took an hour must not find its name taken. Where another run took it within
//! that hour, those by hand are left.

use std::collections::BTreeMap;
use std::time::Duration;

use backstay_model::dump::template::Fields;
use backstay_model::dump::{DumpContent, DumpFormat, DumpShape, Layout, Tier};
use backstay_model::{EngineKind, InstanceId};
use backstay_repo::shelf::{Shelf, ShelfPath};
use backstay_repo::store::StoreError;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::run::Run;

/// One dump to be taken, with a path for each of its tiers, the days first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub content: DumpContent,
    pub shape: DumpShape,
    pub paths: Vec<(Tier, ShelfPath)>,
    pub pointer: Option<ShelfPath>,
}

/// How many names of later seconds are tried.
const SECONDS_AHEAD: u32 = 60;
/// How many seconds a dump waits for a name of its own.
const SECONDS_WAITED: u32 = 3;

/// Where dumps lie of what a restore is about to change: apart from the others, so that
/// nobody who looks for the newest dump by hand takes the state that was to be changed.
const APART: &str = "before_restore/{instance}_{database}_{time:%Y%m%d_%H%M%S}.{ext}";

/// The layout for such a dump.
pub(super) fn apart(layout: &Layout) -> Layout {
    let Ok(daily) = APART.parse() else { return layout.clone() };
    Layout {
        daily,
        weekly: None,
        monthly: None,
        by_hand: Vec::new(),
        pointer: None,
        extension: None,
        ..layout.clone()
    }
}

/// Finds names that nobody has.
pub(super) struct Naming<'a> {
    pub run: &'a Run,
    pub layout: &'a Layout,
    /// The one of the instance's address.
    pub database: Option<&'a str>,
    pub instance: &'a InstanceId,
    pub shelf: &'a dyn Shelf,
}

impl Naming<'_> {
    /// With the time that it is. Where another dump took the name within this second, the next
    /// second is waited for: two commands in one script are no mistake.
    pub(super) async fn by_the_clock(&self, wanted: Wanted) -> Result<(Vec<Named>, Timestamp)> {
        let mut waited = 0;
        loop {
            let at = self.run.clock.now();
            let named = self.assign(&wanted, at)?;
            let Err(error) = self.must_be_free(&named).await else { return Ok((named, at)) };
            let next = whole_second_after(at);
            // One that has no sidecar may be in the middle of getting it.
            let is_taken = is_taken(&error);
            let is_for_the_day = is_taken && !has_others(&named, &self.assign(&wanted, next)?);
            if is_for_the_day && let Some(named) = self.by_hand(&wanted, at, &error).await? {
                return Ok((named, at));
            }
            let waits = is_taken && (!is_for_the_day || self.has_later_by_hand(&wanted, at, next, &error)?);
            if !waits || waited == SECONDS_WAITED {
                return Err(error);
            }
            waited += 1;
            let rest = Duration::try_from(next.duration_since(at)).unwrap_or_default();
            tokio::select! {
                biased;
                () = self.run.cancel.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// With the names that the layout has for what is taken beside the dump of the day. A
    /// stranger's file in the place of that is for a person to look at first.
    async fn by_hand(&self, wanted: &Wanted, at: Timestamp, taken: &Error) -> Result<Option<Vec<Named>>> {
        if !matches!(taken, Error::DumpNameTaken { .. }) {
            return Ok(None);
        }
        Ok(self.free_by_hand(wanted, at).await?.into_iter().next())
    }

    /// Whether there are other names by hand a second later.
    fn has_later_by_hand(
        &self,
        wanted: &Wanted,
        at: Timestamp,
        next: Timestamp,
        taken: &Error,
    ) -> Result<bool> {
        if !matches!(taken, Error::DumpNameTaken { .. }) {
            return Ok(false);
        }
        for layout in self.layout.layouts_by_hand() {
            let names = |at| assign(&layout, self.database, self.instance, wanted.clone(), at);
            if has_others(&names(at)?, &names(next)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Those of these names that nobody has, whoever's the others are.
    async fn free_by_hand(&self, wanted: &Wanted, at: Timestamp) -> Result<Vec<Vec<Named>>> {
        let mut free = Vec::new();
        for layout in self.layout.layouts_by_hand() {
            let named = assign(&layout, self.database, self.instance, wanted.clone(), at)?;
            match must_be_free(self.shelf, &layout, self.instance, &named).await {
                Ok(()) => free.push(named),
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(free)
    }

    /// The names of one dump whose own another run took while it was being made.
    pub(super) async fn instead(&self, dump: &Named, at: Timestamp) -> Result<Vec<Named>> {
        let wanted = vec![(dump.content.clone(), dump.shape)];
        Ok(self.free_by_hand(&wanted, at).await?.into_iter().flatten().collect())
    }

    /// With a later time, where the present one's names are taken: nobody chose the time of
    /// what a restore is about to change, and a restore must not fail for its name.
    pub(super) async fn ahead(&self, wanted: Wanted) -> Result<(Vec<Named>, Timestamp)> {
        let mut at = self.run.clock.now();
        let mut seconds = 0;
        loop {
            let named = self.assign(&wanted, at)?;
            let Err(error) = self.must_be_free(&named).await else { return Ok((named, at)) };
            if !is_taken(&error) || seconds == SECONDS_AHEAD {
                return Err(error);
            }
            seconds += 1;
            at = whole_second_after(at);
        }
    }

    fn assign(&self, wanted: &Wanted, at: Timestamp) -> Result<Vec<Named>> {
        assign(self.layout, self.database, self.instance, wanted.clone(), at)
    }

    async fn must_be_free(&self, named: &[Named]) -> Result<()> {
        must_be_free(self.shelf, self.layout, self.instance, named).await
    }
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::DumpNameTaken { .. } | Error::DumpNameOfStranger { .. })
}

/// Whether every name of the first is another one in the second.
fn has_others(first: &[Named], second: &[Named]) -> bool {
    let mut names = first.iter().zip(second).flat_map(|(one, other)| one.paths.iter().zip(&other.paths));
    names.all(|((_, one), (_, other))| one != other)
}

fn whole_second_after(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() + 1).unwrap_or(at)
}

/// What is to be dumped, and as what.
type Wanted = Vec<(DumpContent, DumpShape)>;

/// Names for everything that is taken at this time.
fn assign(
    layout: &Layout,
    own: Option<&str>,
    instance: &InstanceId,
    wanted: Wanted,
    at: Timestamp,
) -> Result<Vec<Named>> {
    let mut taken: BTreeMap<ShelfPath, String> = BTreeMap::new();
    let mut named = Vec::with_capacity(wanted.len());
    for (content, shape) in wanted {
        let ext = extension(layout, &content, &shape);
        let database = in_names(&content, &shape);
        let fields = |tier| Fields { database: database.as_deref(), instance, tier, ext: &ext, time: at };
        let path = |text: String| text.parse::<ShelfPath>().map_err(backstay_repo::Error::from);
        let mut paths = Vec::new();
        for tier in layout.tiers(at) {
            let Some(rendered) = layout.path(&fields(tier)) else { continue };
            let path = path(rendered)?;
            let what = described(&content);
            if let Some(other) = taken.insert(path.clone(), what.clone()) {
                return Err(Error::DumpsMeet { path: path.to_string(), one: other, other: what });
            }
            paths.push((tier, path));
        }
        let pointer = layout.pointer_path(&fields(Tier::Daily)).map(path).transpose()?;
        let pointer = pointer.filter(|_| layout.points_to(&content, own));
        named.push(Named { content, shape, paths, pointer });
    }
    // A pointer shows one dump: where several would have it, it is the last whole one's.
    Ok(named)
}

/// What stands in a name where the database does: a server without databases has the name that
/// scripts gave its dumps, `redis`.
pub(super) fn in_names(content: &DumpContent, shape: &DumpShape) -> Option<String> {
    match (content, shape.format) {
        (DumpContent::Server, DumpFormat::Rdb) => Some(EngineKind::Redis.to_string()),
        _ => content.database().map(str::to_owned),
    }
}

/// The roles of a server are statements, whatever the databases are.
pub(super) fn extension(layout: &Layout, content: &DumpContent, shape: &DumpShape) -> String {
    match content {
        DumpContent::Globals => shape.extension(),
        DumpContent::Database { .. }
        | DumpContent::Parts { .. }
        | DumpContent::Cluster { .. }
        | DumpContent::Server => layout.extension(shape),
    }
}

pub(crate) fn described(content: &DumpContent) -> String {
    match content {
        DumpContent::Database { database } => format!("database {database}"),
        DumpContent::Parts { database, .. } => format!("parts of database {database}"),
        DumpContent::Globals => "the roles and tablespaces".to_owned(),
        DumpContent::Cluster { databases } => format!("the databases {}", databases.join(", ")),
        DumpContent::Server => "the whole server".to_owned(),
    }
}

/// Refuses names that somebody has.
async fn must_be_free(
    shelf: &dyn Shelf,
    layout: &Layout,
    instance: &InstanceId,
    named: &[Named],
) -> Result<()> {
    for (_, path) in named.iter().flat_map(|dump| &dump.paths) {
        let beside = path.beside(&layout.sidecar).map_err(backstay_repo::Error::from)?;
        let shelf_address = || shelf.location().to_owned();
        match (is_there(shelf, path).await?, is_there(shelf, &beside).await?) {
            (false, false) => {}
            (true, true) => {
                return Err(Error::DumpNameTaken { path: path.to_string(), shelf: shelf_address() });
            }
            (false, true) => {
                return Err(Error::DumpNameTaken { path: beside.to_string(), shelf: shelf_address() });
            }
            (true, false) => {
                let (instance, path) = (instance.clone(), path.to_string());
                return Err(Error::DumpNameOfStranger { instance, path, shelf: shelf_address() });
            }
        }
    }
    Ok(())
}

async fn is_there(shelf: &dyn Shelf, path: &ShelfPath) -> Result<bool> {
    match shelf.head(path).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(backstay_repo::Error::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(name: &str) -> (DumpContent, DumpShape) {
        (DumpContent::Database { database: name.to_owned() }, DumpShape::default())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn instance() -> InstanceId {
        "main".parse().unwrap()
    }

    #[test]
    fn a_sunday_that_is_a_first_gives_a_dump_three_names() {
        let layout = Layout::preset("tiers").unwrap();
        let named = assign(&layout, None, &instance(), vec![database("orders")], at("2024-09-01T02:00:00Z"));
        let named = named.unwrap().remove(0);
        let paths: Vec<_> = named.paths.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "daily/orders_20240901_020000.dump.zst",
                "weekly/orders_20240901_020000.dump.zst",
                "monthly/orders_20240901_020000.dump.zst"
            ]
        );
        assert_eq!(named.pointer.unwrap().as_str(), "latest_orders.dump.zst");
    }

    #[test]
    fn what_a_restore_is_about_to_change_is_dumped_apart_from_the_others() {
        let layout = apart(&Layout::preset("grill-stats").unwrap());
        let named = assign(&layout, None, &instance(), vec![database("orders")], at("2024-09-01T02:00:00Z"));
        let named = named.unwrap().remove(0);
        let [(_, path)] = named.paths.as_slice() else { panic!("{named:?}") };
        assert_eq!(path.as_str(), "before_restore/main_orders_20240901_020000.dump.zst");
        assert_eq!(named.pointer, None);
    }

    #[test]
    fn a_server_without_databases_is_called_as_scripts_called_its_dumps() {
        for (preset, expected) in [
            ("grill-stats", "daily/redis_20240902_030000.rdb.gz"),
            ("grill-stats-backup", "redis_20240902_030000.rdb.gz.enc"),
            ("plain", "main/redis_20240902_030000.rdb.gz"),
        ] {
            let layout = Layout::preset_of_engine(preset, EngineKind::Redis).unwrap();
            let wanted = vec![(DumpContent::Server, layout.shape)];
            let named = assign(&layout, None, &instance(), wanted, at("2024-09-02T03:00:00Z")).unwrap();
            let [(_, path)] = named[0].paths.as_slice() else { panic!("{named:?}") };
            assert_eq!(path.as_str(), expected);
        }
    }

    #[test]
    fn two_databases_under_one_name_are_refused_before_the_first_byte() {
        let layout = Layout::preset("auto-recovery").unwrap();
        let both = vec![database("orders"), database("stock")];
        let error = assign(&layout, None, &instance(), both, at("2024-09-02T02:00:00Z")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("database orders") && text.contains("database stock"), "{text}");
    }
}
