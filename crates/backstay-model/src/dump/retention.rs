//! Which dumps stay on a shelf, why, and which may go.
//!
//! Each file is decided in its tier, by age and by number: while either keeps it, it
//! stays. Dumps of one database are counted together, those of chosen tables among their
//! like only, so that a part never stands for the whole. Files without a sidecar are not
//! among what is given here, so nothing is ever said of them.
//!
//! Invariants, each held by a property test: the newest good dump of each database stays,
//! and the newest of all, good or not; dumps that were taken together go together; what
//! goes now also goes later; a second run lets nothing more go; damage lets nothing go
//! that would have stayed; a more generous rule lets nothing more go.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{DumpContent, DumpRecord, Tier};
use crate::hold::Hold;
use crate::id::{BackupId, InstanceId};

mod reason;

pub use reason::DumpKeepReason;

/// How long the dumps of one tier stay. Nothing set keeps everything of the tier: a rule
/// that nobody wrote must not delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TierKeep {
    /// What is younger stays.
    pub age: Option<SignedDuration>,
    /// The newest so many of each database stay.
    pub count: Option<u32>,
}

impl TierKeep {
    fn keeps_everything(&self) -> bool {
        self.age.is_none() && self.count.is_none()
    }
}

/// What to keep in each tier; a tier without a rule keeps everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DumpKeep {
    pub daily: Option<TierKeep>,
    pub weekly: Option<TierKeep>,
    pub monthly: Option<TierKeep>,
    /// Never fewer good dumps of a database than this, in all tiers together. The newest
    /// good one stays at 0 as well.
    pub minimum: u32,
}

impl DumpKeep {
    /// The rule of a tier; `None` when everything of it stays.
    pub fn rule(&self, tier: Tier) -> Option<TierKeep> {
        let rule = match tier {
            Tier::Daily => self.daily,
            Tier::Weekly => self.weekly,
            Tier::Monthly => self.monthly,
        };
        rule.filter(|rule| !rule.keeps_everything())
    }
}

/// One file of a dump. The same dump may lie in several tiers under several names.
#[derive(Debug, Clone, PartialEq)]
pub struct DumpOnShelf {
    pub record: DumpRecord,
    /// Where this file lies, whatever the record says.
    pub tier: Tier,
    /// Relative to the shelf.
    pub path: String,
    pub hold: Option<Hold>,
    /// Verification found this file damaged.
    pub damaged: bool,
}

/// What is said of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DumpFate {
    pub path: String,
    pub id: BackupId,
    pub instance: InstanceId,
    #[serde(flatten)]
    pub content: DumpContent,
    pub tier: Tier,
    pub finished_at: Timestamp,
    pub stored_bytes: u64,
    /// Why it stays; empty for one that may go.
    pub reasons: Vec<DumpKeepReason>,
}

/// What `expire` does to a shelf. Newest first in both lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DumpExpirePlan {
    pub as_of: Timestamp,
    pub keep: Vec<DumpFate>,
    pub expire: Vec<DumpFate>,
}

/// The dumps that can stand for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holding<'a> {
    Globals,
    Database(&'a str),
    Parts(&'a str, &'a [String], &'a [String]),
    /// Whichever databases there were: they come and go, and the server stays.
    Cluster,
    Server,
}

type Series<'a> = (&'a InstanceId, Holding<'a>, bool);

/// By this, dumps are in the order in which they were taken.
type Order<'a> = (Timestamp, &'a BackupId);

impl DumpOnShelf {
    fn series(&self) -> Series<'_> {
        let holding = match &self.record.content {
            DumpContent::Globals => Holding::Globals,
            DumpContent::Database { database } => Holding::Database(database),
            DumpContent::Cluster { .. } => Holding::Cluster,
            DumpContent::Server => Holding::Server,
            DumpContent::Parts { database, tables, schemas } => Holding::Parts(database, tables, schemas),
        };
        // The state before a restore never stands for the one that was meant to be kept, nor
        // does a dump of nobody knows what.
        (&self.record.instance, holding, self.record.safety || self.record.guessed)
    }

    fn order(&self) -> Order<'_> {
        (self.record.finished_at, &self.record.id)
    }

    /// What goes or stays together: the dumps of one run over a whole server, in one tier.
    fn together(&self) -> Option<(&InstanceId, &BackupId, Tier)> {
        self.record.set.as_ref().map(|set| (&self.record.instance, set, self.tier))
    }
}

/// Plans what may go at `as_of`.
pub fn plan_expire_dumps(files: &[DumpOnShelf], keep: &DumpKeep, as_of: Timestamp) -> DumpExpirePlan {
    let mut newest_first: Vec<&DumpOnShelf> = files.iter().collect();
    newest_first.sort_by(|a, b| b.order().cmp(&a.order()).then_with(|| a.path.cmp(&b.path)));

    // Once over the good ones, so that a damaged dump does not take the place of a good
    // one; once over all, so that damage alone lets nothing go.
    let ended: Vec<&DumpOnShelf> =
        newest_first.iter().copied().filter(|file| file.record.finished_at <= as_of).collect();
    let good: Vec<&DumpOnShelf> = ended.iter().copied().filter(|file| !file.damaged).collect();
    let ranks = [&good, &ended].map(|files| Ranks::of(files));

    let mut fates: Vec<(&DumpOnShelf, Vec<DumpKeepReason>)> =
        newest_first.into_iter().map(|file| (file, reasons(file, keep, as_of, &ranks))).collect();
    stay_together(&mut fates);

    let (kept, expired) = fates.into_iter().map(|(file, reasons)| fate(file, reasons)).partition(stays);
    DumpExpirePlan { as_of, keep: kept, expire: expired }
}

fn stays(fate: &DumpFate) -> bool {
    !fate.reasons.is_empty()
}

fn fate(file: &DumpOnShelf, reasons: Vec<DumpKeepReason>) -> DumpFate {
    let DumpRecord { id, instance, content, finished_at, stored_bytes, .. } = &file.record;
    DumpFate {
        path: file.path.clone(),
        id: id.clone(),
        instance: instance.clone(),
        content: content.clone(),
        tier: file.tier,
        finished_at: *finished_at,
        stored_bytes: *stored_bytes,
        reasons,
    }
}

/// Why a file stays by itself, whatever lies beside it; `ranks` are those among the good
/// files and among all.
fn reasons(
    file: &DumpOnShelf,
    keep: &DumpKeep,
    as_of: Timestamp,
    ranks: &[Ranks<'_>; 2],
) -> Vec<DumpKeepReason> {
    let mut reasons = Vec::new();
    if file.record.finished_at > as_of {
        reasons.push(DumpKeepReason::Later);
    } else if let Some(TierKeep { age, count }) = keep.rule(file.tier) {
        let of = count.unwrap_or(0);
        let nth = ranks.iter().filter_map(|ranks| ranks.in_tier(file)).find(|nth| *nth <= of);
        reasons.extend(nth.map(|nth| DumpKeepReason::Nth { tier: file.tier, nth, of }));
        let age = age.filter(|age| as_of.duration_since(file.record.finished_at) < *age);
        reasons.extend(age.map(|age| DumpKeepReason::Younger { than: age }));
    } else {
        reasons.push(DumpKeepReason::NoRetention);
    }
    if let Some(hold) = file.hold.as_ref().filter(|hold| hold.is_in_force(as_of)) {
        reasons.push(DumpKeepReason::Held(hold.clone()));
    }
    let [among_good, among_all] = ranks;
    let of = keep.minimum;
    let nth = ranks.iter().filter_map(|ranks| ranks.anywhere(file)).find(|nth| *nth <= of);
    reasons.extend(nth.map(|nth| DumpKeepReason::Minimum { nth, of }));
    if among_good.anywhere(file) == Some(1) {
        reasons.push(DumpKeepReason::LastGood);
    }
    if reasons.is_empty() && among_all.anywhere(file) == Some(1) {
        // Damaged or not, what is left of the newest may be all there is.
        reasons.push(DumpKeepReason::Minimum { nth: 1, of: 1 });
    }
    reasons
}

/// Of some files, how new each dump is among its like; several files of one dump count
/// as one.
struct Ranks<'a> {
    in_tier: BTreeMap<(Series<'a>, Tier, Order<'a>), u32>,
    anywhere: BTreeMap<(Series<'a>, Order<'a>), u32>,
    members: BTreeSet<&'a str>,
}

impl<'a> Ranks<'a> {
    fn of(newest_first: &[&'a DumpOnShelf]) -> Self {
        let mut ranks =
            Self { in_tier: BTreeMap::new(), anywhere: BTreeMap::new(), members: BTreeSet::new() };
        let (mut last_in_tier, mut last_anywhere) = (BTreeMap::new(), BTreeMap::new());
        for file in newest_first {
            let (series, order) = (file.series(), file.order());
            let next = |last: &mut u32| {
                *last = last.saturating_add(1);
                *last
            };
            ranks
                .in_tier
                .entry((series, file.tier, order))
                .or_insert_with(|| next(last_in_tier.entry((series, file.tier)).or_default()));
            ranks
                .anywhere
                .entry((series, order))
                .or_insert_with(|| next(last_anywhere.entry(series).or_default()));
            ranks.members.insert(&file.path);
        }
        ranks
    }

    /// From 1 for the newest; `None` for a file that is not counted.
    fn in_tier(&self, file: &'a DumpOnShelf) -> Option<u32> {
        let key = (file.series(), file.tier, file.order());
        self.in_tier.get(&key).copied().filter(|_| self.members.contains(file.path.as_str()))
    }

    fn anywhere(&self, file: &'a DumpOnShelf) -> Option<u32> {
        let key = (file.series(), file.order());
        self.anywhere.get(&key).copied().filter(|_| self.members.contains(file.path.as_str()))
    }
}

/// One database of a server alone does not bring back the server: what was taken together
/// stays while any of it stays.
fn stay_together(fates: &mut [(&DumpOnShelf, Vec<DumpKeepReason>)]) {
    let staying: BTreeSet<_> = fates
        .iter()
        .filter(|(_, reasons)| !reasons.is_empty())
        .filter_map(|(file, _)| file.together())
        .collect();
    for (file, reasons) in fates {
        let with_others = file.together().is_some_and(|set| staying.contains(&set));
        if reasons.is_empty() && with_others {
            reasons.push(DumpKeepReason::WithItsSet);
        }
    }
}

#[cfg(test)]
mod tests;
