use proptest::prelude::*;

use super::spelling::{spell, spell_database};
use super::*;

fn template(text: &str) -> NameTemplate {
    text.parse().unwrap()
}

fn refused(text: &str) -> String {
    text.parse::<NameTemplate>().unwrap_err().to_string()
}

fn instance() -> InstanceId {
    "main".parse().unwrap()
}

fn fields<'a>(database: &'a str, instance: &'a InstanceId, ext: &'a str, time: &str) -> Fields<'a> {
    Fields { database: Some(database), instance, tier: Tier::Weekly, ext, time: time.parse().unwrap() }
}

#[test]
fn a_template_is_filled_in() {
    let main = instance();
    let orders = fields("orders", &main, "dump.zst", "2026-11-01T02:03:04.9Z");
    for (text, path) in [
        ("{tier}/{database}_{time}.{ext}", "weekly/orders_20261101_020304.dump.zst"),
        ("{instance}/{time:%Y/%m}/{database}-{time:%d}.{ext}", "main/2026/11/orders-01.dump.zst"),
        ("our dumps/{time:%Y-%m-%d}.pgdump", "our dumps/2026-11-01.pgdump"),
        ("backup_{time:%s}.{ext}", "backup_1793498584.dump.zst"),
    ] {
        assert_eq!(template(text).render(&orders), path);
        assert_eq!(template(text).to_string(), text);
    }
}

#[test]
fn what_belongs_to_no_database_is_told_from_a_database_of_that_name() {
    let main = instance();
    let named = fields("globals", &main, "sql", "2026-11-01T02:03:04Z");
    let none = Fields { database: None, ..named };
    let template = template("{database}_{time}.{ext}");
    assert_eq!(template.render(&none), "globals_20261101_020304.sql");
    assert_ne!(template.render(&named), template.render(&none));
}

#[test]
fn a_wrong_field_is_named_with_the_one_that_was_meant() {
    for (given, meant) in [
        ("databse", "database"),
        ("Database", "database"),
        ("dtabase", "database"),
        ("db", "database"),
        ("instnace", "instance"),
        ("extension", "ext"),
        ("timestamp", "time"),
        ("tme:%Y", "time"),
        ("date", "time"),
    ] {
        assert_eq!(
            refused(&format!("{{{given}}}_{{time}}.{{ext}}")),
            format!(
                "{{{given}}} is no field of a dump's name, which may have {{database}}, {{instance}}, {{tier}}, {{ext}}, {{time}} and {{time:%Y-%m-%d}}; was {{{meant}}} meant?"
            )
        );
    }
    assert!(refused("{colour}_{time}.{ext}").ends_with("and {time:%Y-%m-%d}"));
}

#[test]
fn a_template_that_leads_elsewhere_or_lets_dumps_meet_is_refused() {
    for (text, why) in [
        ("/backups/{time}.{ext}", "is an absolute path"),
        ("../{time}.{ext}", "leads out of the directory"),
        ("a/../{time}.{ext}", "leads out of the directory"),
        ("a//{time}.{ext}", "has an empty part"),
        ("{time}.{ext}/", "has an empty part"),
        ("", "has an empty part"),
        (".{time}.{ext}", "begins with a dot"),
        ("a/./{time}.{ext}", "begins with a dot"),
        ("a\\{time}.{ext}", "holds '\\\\'"),
        ("a\n{time}.{ext}", "holds '\\n'"),
        ("{time.{ext}", "has no partner"),
        ("time}.{ext}", "has no partner"),
        ("{database}.{ext}", "has no {time}"),
        ("{time:%Y-%m}.{ext}", "{time:%Y-%m} the day cannot be read"),
        ("{time:%H%M%S}.{ext}", "the day cannot be read"),
        ("{time:%Y}/{time:%m}.{ext}", "{time:%Y} and {time:%m} the day"),
        ("{time:%Y%m%d_%I%M}.{ext}", "the day cannot be read"),
        ("{time:%q}.{ext}", "the day cannot be read"),
        ("{time:}.{ext}", "the day cannot be read"),
        ("{time:%Y/../%m/%d}.{ext}", "leads out of the directory"),
        ("{database}_{time}", "ends without {ext}"),
        ("dumps.d/{database}_{time}", "ends without {ext}"),
    ] {
        assert!(refused(text).contains(why), "{text:?}: {}", refused(text));
    }
}

#[test]
fn every_refusal_says_what_to_set() {
    for text in ["{db}.{ext}", "/x", "..", "a", "{time}", "}", ".a", "a//b", "\\", "{time:%Y}.{ext}"] {
        let error = text.parse::<NameTemplate>().unwrap_err();
        let hints = error.hints();
        assert!(!hints.is_empty() && hints.iter().all(|hint| !hint.ends_with('.')), "{text}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_pointer_keeps_its_name_from_dump_to_dump() {
    let main = instance();
    let pointer: PointerName = "latest_{database}.{ext}".parse().unwrap();
    let orders = fields("orders", &main, "sql.gz", "2026-11-01T02:03:04Z");
    assert_eq!(pointer.render(&orders), "latest_orders.sql.gz");
    for moving in ["latest_{time}.{ext}", "{tier}/latest.{ext}"] {
        let error = moving.parse::<PointerName>().unwrap_err();
        assert!(error.to_string().ends_with("another name with every dump"), "{error}");
        assert!(!error.hints().is_empty());
    }
    assert!("/latest.{ext}".parse::<PointerName>().is_err());
}

#[test]
fn a_template_is_text_in_a_file_and_a_wrong_one_is_an_error() {
    let text = "\"{tier}/{database}_{time}.{ext}\"";
    let read: NameTemplate = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert!(serde_json::from_str::<NameTemplate>("\"{database}.{ext}\"").is_err());
}

fn read(text: &str, path: &str) -> Option<(String, Option<Tier>, String)> {
    let matched = template(text).matches(path)?;
    Some((matched.database.unwrap_or_default(), matched.tier, matched.time.to_string()))
}

#[test]
fn the_names_of_old_dumps_tell_their_time() {
    for (text, path, database, tier, time) in [
        (
            "{database}_{time}.{ext}",
            "grill_stats_20240101_010000.sql.gz",
            "grill_stats",
            None,
            "2024-01-01T01:00:00Z",
        ),
        (
            "{tier}/{database}_{time}.{ext}",
            "weekly/a_20240107_010000.dump",
            "a",
            Some(Tier::Weekly),
            "2024-01-07T01:00:00Z",
        ),
        ("backup-{time:%Y-%m-%d}.{ext}", "backup-2024-01-24.sql.gz", "", None, "2024-01-24T00:00:00Z"),
        ("{time:%Y/%m/%d}/{database}.{ext}", "2024/02/29/a.b.sql.gz", "a.b", None, "2024-02-29T00:00:00Z"),
        (
            "{database}.{time:%B-%-d-%Y_%H}.{ext}",
            "a.September-1-2024_07.sql.xz",
            "a",
            None,
            "2024-09-01T07:00:00Z",
        ),
        // The last time counts, and an odd extension is one.
        (
            "{database}_{time}.{ext}",
            "a_20240101_010000_20250202_020000.backup",
            "a_20240101_010000",
            None,
            "2025-02-02T02:00:00Z",
        ),
    ] {
        assert_eq!(read(text, path), Some((database.to_owned(), tier, time.to_owned())), "{path}");
    }
}

#[test]
fn what_the_template_did_not_make_does_not_match() {
    for (text, path) in [
        ("{database}_{time}.{ext}", "orders_20240132_010000.sql.gz"),
        ("{database}_{time}.{ext}", "orders_20240101_250000.sql.gz"),
        ("{database}_{time}.{ext}", "orders_20240101_010000"),
        ("{database}_{time}.{ext}", "orders_20240101_010000."),
        ("{database}_{time}.{ext}", "_20240101_010000.sql"),
        ("{database}_{time}.{ext}", "daily/orders_20240101_010000.sql"),
        ("{database}_{time}.{ext}", ".orders_20240101_010000.sql"),
        ("{database}_{time}.{ext}", "größe_20240101_010000.sql"),
        ("{database}_{time}.{ext}", "orders_ü.sql"),
        ("{database}_{time}.{ext}", ""),
        ("{tier}/{database}_{time}.{ext}", "yearly/orders_20240101_010000.sql"),
        ("{tier}/{tier}_{time}.{ext}", "daily/weekly_20240101_010000.sql"),
        ("{database}/{database}_{time}.{ext}", "a/b_20240101_010000.sql"),
        ("{time:%Y}/{time}.{ext}", "2023/20240101_010000.sql"),
        // The first of January 2024 was a Monday.
        ("{time:%A_%Y%m%d}.{ext}", "Sunday_20240101.sql"),
    ] {
        assert_eq!(template(text).matches(path), None, "{text} {path}");
    }
}

#[test]
fn a_hostile_name_is_read_in_little_time() {
    let template = template("{time}_{instance}_{database}.{ext}");
    let name = "a_".repeat(100) + &"a.".repeat(100);
    assert_eq!(template.matches(&name), None);
}

const EXTENSIONS: [&str; 6] = ["dump", "dump.zst.enc", "sql.gz", "sql.gz.gpg", "tar.gz.enc", "sql"];
const TIMES: [&str; 5] =
    ["{time}", "{time:%Y-%m-%d}", "{time:%Y%m%dT%H%M%SZ}", "{time:%F_%H-%M}", "{time:%s}"];

/// Any second of the years 1970 to 2099. Times of ten digits only, as of 2001, where
/// seconds are counted.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (1_000_000_000i64..4_102_444_800).prop_map(|second| Timestamp::from_second(second).unwrap())
}

fn any_database() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[a-z_.-]{1,12}", "[0-9_]{1,20}", any::<String>()]
}

fn any_instance() -> impl Strategy<Value = InstanceId> {
    "[a-z0-9][a-z0-9_-]{0,12}".prop_filter_map("reserved", |text| text.parse().ok())
}

/// Templates whose parts hold one name each, so that there is one way to read them.
fn clear_template() -> impl Strategy<Value = String> {
    let directory = prop::sample::select(vec!["", "{tier}/", "{instance}/", "full/", "{time:%Y/%m}/"]);
    let name =
        prop::sample::select(vec!["{database}", "{tier}.{database}", "our-{database}-full", "{database}"]);
    let time = prop::sample::select(TIMES.to_vec());
    (directory, name, prop::sample::select(vec!["_", "-", "."]), time, any::<bool>()).prop_map(
        |(directory, name, between, time, time_first)| match time_first {
            true => format!("{directory}{time}{between}{name}.{{ext}}"),
            false => format!("{directory}{name}{between}{time}.{{ext}}"),
        },
    )
}

/// Any order of the fields, also where they run into each other.
fn any_template() -> impl Strategy<Value = String> {
    let fields = Just(vec!["{database}", "{instance}", "{tier}", "{time}", "{time:%j}"]).prop_shuffle();
    (fields, prop::sample::select(vec!["", "_", "-", ".", "/"]))
        .prop_map(|(fields, between)| format!("{}.{{ext}}", fields.join(between)))
}

proptest! {
    #[test]
    fn what_was_rendered_reads_back(
        text in clear_template(), database in any_database(), instance in any_instance(),
        tier in prop::sample::select(Tier::ALL.to_vec()), time in any_time(),
        ext in prop::sample::select(EXTENSIONS.to_vec()),
    ) {
        let template = template(&text);
        let fields = Fields { database: Some(&database), instance: &instance, tier, ext, time };
        let path = template.render(&fields);
        let Some(matched) = template.matches(&path) else { panic!("{path} is not of {text}") };
        prop_assert_eq!(matched.database, Some(spell_database(Some(&database))), "{}", path);
        if text.contains("{instance}") {
            prop_assert_eq!(matched.instance, Some(spell(instance.as_str())));
        }
        if text.contains("{tier}") {
            prop_assert_eq!(matched.tier, Some(tier));
        }
        // Written again with the time that was read, it is the same name.
        prop_assert_eq!(template.render(&Fields { time: matched.time, ..fields }), path);
        prop_assert!(matched.time <= time);
        if text.contains("{time}") {
            prop_assert_eq!(matched.time, time);
        }
    }

    #[test]
    fn an_ambiguous_name_reads_as_something_that_would_be_called_the_same(
        text in any_template(), database in any_database(), instance in any_instance(), time in any_time(),
    ) {
        let template = template(&text);
        let ext = "dump.zst";
        let path = template.render(&Fields { database: Some(&database), instance: &instance, tier: Tier::Daily, ext, time });
        let Some(matched) = template.matches(&path) else { panic!("{path} is not of {text}") };
        let (database, instance) = (matched.database.unwrap(), matched.instance.unwrap());
        let again = text
            .replace("{database}", &database)
            .replace("{instance}", &instance)
            .replace("{tier}", &matched.tier.unwrap().to_string())
            .replace("{time}", &matched.time.strftime("%Y%m%d_%H%M%S").to_string())
            .replace("{time:%j}", &matched.time.strftime("%j").to_string())
            .replace("{ext}", ext);
        prop_assert_eq!(again, path);
    }

    #[test]
    fn a_path_stays_below_its_directory(
        text in any_template(), database in any::<String>(), instance in any_instance(), ext in any::<String>(),
        time in any_time(),
    ) {
        let template = template(&text);
        let fields = Fields { database: Some(&database), instance: &instance, tier: Tier::Daily, ext: &ext, time };
        let path = template.render(&fields);
        prop_assert_eq!(path.matches('/').count(), text.matches('/').count());
        prop_assert!(path.split('/').all(|part| !part.is_empty() && !part.starts_with('.')), "{}", path);
    }

    #[test]
    fn reading_a_template_and_a_path_never_fails_otherwise_than_by_saying_so(
        text in "[{}/a:%.][{}a-z:%Y./]{0,20}", path in any::<String>(),
    ) {
        if let Ok(template) = text.parse::<NameTemplate>() {
            template.matches(&path);
        }
        template("{instance}.{time}{database}-{ext}").matches(&path);
    }
}
