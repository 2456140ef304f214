use super::*;

/// About a year, in hours.
const SPAN_HOURS: i64 = 366 * 24;

fn hour(n: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(n)
}

fn content(kind: u8) -> DumpContent {
    match kind {
        0 | 1 => whole("orders"),
        2 => whole("customers"),
        3 => DumpContent::Globals,
        _ => DumpContent::Parts {
            database: "orders".to_owned(),
            tables: vec!["lines".to_owned()],
            schemas: Vec::new(),
        },
    }
}

/// Dumps in one, two or three tiers, alone or in sets, with every mix of damage to the
/// single files and of holds.
fn any_files() -> impl Strategy<Value = Vec<DumpOnShelf>> {
    let share = || prop::sample::select(vec![0.02, 0.1, 0.5, 0.9]);
    (share(), share(), share()).prop_flat_map(|(damaged, held, in_sets)| {
        let file = (prop::bool::weighted(damaged), prop::option::weighted(held / 3.0, 0..SPAN_HOURS * 2));
        let dump = (
            (prop::bool::weighted(in_sets), 1u8..8, any::<bool>()),
            prop::collection::vec((0u8..5, prop::array::uniform3(file)), 1..4),
        );
        prop::collection::btree_map(0..SPAN_HOURS, dump, 0..25).prop_map(|runs| {
            runs.into_iter()
                .flat_map(|(at, ((in_set, tiers, second), dumps))| {
                    files_of_a_run(at, in_set, tiers, second, dumps)
                })
                .collect()
        })
    })
}

type FileMarks = (bool, Option<i64>);

fn files_of_a_run(
    at: i64,
    in_set: bool,
    tiers: u8,
    second: bool,
    dumps: Vec<(u8, [FileMarks; 3])>,
) -> Vec<DumpOnShelf> {
    let set = in_set.then(|| BackupId::new(hour(at), 0));
    let mut files = Vec::new();
    for (nth, (kind, marks)) in dumps.into_iter().enumerate() {
        let finished_at = hour(at) + SignedDuration::from_mins(nth as i64 * 40);
        let mut record = record(content(kind), finished_at, nth as u32);
        record.set = set.clone();
        if second {
            record.instance = "second".parse().unwrap();
        }
        for (tier, (damaged, held)) in Tier::ALL.into_iter().zip(marks) {
            if tiers & (1 << tier as u8) != 0 {
                files.push(DumpOnShelf {
                    path: format!("{tier}/{at}.{nth}"),
                    record: record.clone(),
                    tier,
                    hold: held.map(|until| crate::Hold::new(Some(hour(until)), None)),
                    damaged,
                });
            }
        }
    }
    files
}

fn any_rule() -> impl Strategy<Value = Option<TierKeep>> {
    let age = prop::option::of((0i64..400).prop_map(|days| DAY * i32::try_from(days).unwrap()));
    prop::option::weighted(
        0.9,
        (age, prop::option::of(0u32..6)).prop_map(|(age, count)| TierKeep { age, count }),
    )
}

fn any_keep() -> impl Strategy<Value = DumpKeep> {
    (any_rule(), any_rule(), any_rule(), 0u32..4).prop_map(|(daily, weekly, monthly, minimum)| DumpKeep {
        daily,
        weekly,
        monthly,
        minimum,
    })
}

fn gone(files: &[DumpOnShelf], keep: &DumpKeep, at: i64) -> BTreeSet<String> {
    plan_expire_dumps(files, keep, hour(at)).expire.into_iter().map(|fate| fate.path).collect()
}

/// The good dumps of each series at a time, newest first, with their good files.
fn good_dumps<'a>(files: &'a [DumpOnShelf], at: i64) -> Vec<Vec<(Order<'a>, Vec<&'a DumpOnShelf>)>> {
    let mut all: BTreeMap<Series<'_>, BTreeMap<Order<'_>, Vec<&DumpOnShelf>>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.damaged && file.record.finished_at <= hour(at)) {
        all.entry(file.series()).or_default().entry(file.order()).or_default().push(file);
    }
    all.into_values().map(|dumps| dumps.into_iter().rev().collect()).collect()
}

proptest! {
    #[test]
    fn the_newest_good_dump_of_each_database_stays_and_the_minimum_with_it(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2,
    ) {
        let gone = gone(&files, &keep, at);
        for dumps in good_dumps(&files, at) {
            for (_, of_dump) in dumps.iter().take((keep.minimum as usize).max(1)) {
                prop_assert!(of_dump.iter().all(|file| !gone.contains(&file.path)));
            }
        }
    }

    #[test]
    fn every_file_is_in_the_plan_once_and_stays_for_a_reason(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2,
    ) {
        let plan = plan_expire_dumps(&files, &keep, hour(at));
        let mut told: Vec<_> = plan.keep.iter().chain(&plan.expire).map(|fate| &fate.path).collect();
        let mut there: Vec<_> = files.iter().map(|file| &file.path).collect();
        told.sort();
        there.sort();
        prop_assert_eq!(told, there);
        prop_assert!(plan.keep.iter().all(|fate| !fate.reasons.is_empty()));
        prop_assert!(plan.expire.iter().all(|fate| fate.reasons.is_empty()));
        prop_assert!(plan.keep.is_sorted_by(|a, b| a.finished_at >= b.finished_at));
        prop_assert!(files.is_empty() || !plan.keep.is_empty());
    }

    #[test]
    fn nothing_goes_that_is_held_or_later_or_younger_or_among_the_newest(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2,
    ) {
        let gone = gone(&files, &keep, at);
        for file in files.iter().filter(|file| gone.contains(&file.path)) {
            prop_assert!(file.record.finished_at <= hour(at));
            prop_assert!(file.hold.as_ref().is_none_or(|hold| !hold.is_in_force(hour(at))));
            let rule = keep.rule(file.tier);
            prop_assert!(rule.is_some());
            let TierKeep { age, count } = rule.unwrap();
            prop_assert!(age.is_none_or(|age| file.record.finished_at + age <= hour(at)));
            let newer: BTreeSet<_> = files
                .iter()
                .filter(|other| other.tier == file.tier && other.series() == file.series())
                .filter(|other| other.order() > file.order() && other.record.finished_at <= hour(at))
                .filter(|other| file.damaged || !other.damaged)
                .map(DumpOnShelf::order)
                .collect();
            prop_assert!(newer.len() >= count.unwrap_or(0) as usize);
        }
    }

    #[test]
    fn what_was_taken_together_goes_together(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2,
    ) {
        let gone = gone(&files, &keep, at);
        for one in files.iter().filter(|file| file.record.set.is_some()) {
            for other in files.iter().filter(|other| other.together() == one.together()) {
                prop_assert_eq!(gone.contains(&one.path), gone.contains(&other.path));
            }
        }
    }

    #[test]
    fn a_file_alone_in_its_set_goes_when_nothing_keeps_it(
        at in 1..SPAN_HOURS, in_set in any::<bool>(), tiers in 1u8..8,
    ) {
        let clear = [(false, None); 3];
        let mut files = files_of_a_run(0, in_set, tiers, false, vec![(0, clear), (2, clear)]);
        files.extend(files_of_a_run(at, in_set, tiers, false, vec![(0, clear), (2, clear)]));
        let nothing = Some(TierKeep { age: None, count: Some(0) });
        let keep = DumpKeep { daily: nothing, weekly: nothing, monthly: nothing, minimum: 0 };
        prop_assert_eq!(gone(&files, &keep, SPAN_HOURS * 2).len(), files.len() / 2);
    }

    #[test]
    fn what_goes_now_also_goes_later_when_more_dumps_have_come(
        files in any_files(), keep in any_keep(), now in 0..SPAN_HOURS, wait in 0..SPAN_HOURS,
    ) {
        let now_gone = gone(&files, &keep, now);
        prop_assert!(now_gone.is_subset(&gone(&files, &keep, now + wait)));
        // And when what comes later was not there yet.
        let there: Vec<_> =
            files.iter().filter(|file| file.record.started_at <= hour(now)).cloned().collect();
        prop_assert!(gone(&there, &keep, now).is_subset(&gone(&files, &keep, now + wait)));
    }

    #[test]
    fn a_second_run_over_what_is_left_lets_nothing_more_go(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2,
    ) {
        let first = gone(&files, &keep, at);
        let left: Vec<_> = files.into_iter().filter(|file| !first.contains(&file.path)).collect();
        prop_assert_eq!(gone(&left, &keep, at), BTreeSet::new());
    }

    #[test]
    fn a_run_that_was_cut_off_after_any_part_changes_nothing_of_the_rest(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2, done in 0usize..20,
    ) {
        let whole_run = gone(&files, &keep, at);
        let removed: BTreeSet<_> = whole_run.iter().take(done).cloned().collect();
        let left: Vec<_> = files.into_iter().filter(|file| !removed.contains(&file.path)).collect();
        let rest: BTreeSet<_> = whole_run.difference(&removed).cloned().collect();
        prop_assert_eq!(gone(&left, &keep, at), rest);
    }

    #[test]
    fn finding_damage_lets_no_file_go_that_would_have_stayed(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2,
    ) {
        let mut sound = files.clone();
        sound.iter_mut().for_each(|file| file.damaged = false);
        prop_assert!(gone(&files, &keep, at).is_subset(&gone(&sound, &keep, at)));
    }

    #[test]
    fn a_more_generous_rule_lets_nothing_more_go(
        files in any_files(), keep in any_keep(), at in 0..SPAN_HOURS * 2, more in 0u32..3, older in 0i32..30,
    ) {
        let wider = |rule: Option<TierKeep>| rule.map(|TierKeep { age, count }| TierKeep {
            age: age.map(|age| age + DAY * older),
            count: count.map(|count| count + more),
        });
        let generous = DumpKeep {
            daily: wider(keep.daily), weekly: wider(keep.weekly), monthly: None, minimum: keep.minimum + more,
        };
        prop_assert!(gone(&files, &generous, at).is_subset(&gone(&files, &keep, at)));
    }
}
