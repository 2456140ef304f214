use std::path::Path;

use backstay_model::ErrorKind;

use super::*;

/// The file of `architecture.md`: three databases in twenty lines.
const THREE: &str = r#"[repository]
store = "file:///var/lib/backstay"
key = { file = "/etc/backstay/repository.key" }

[instance.orders]
engine = "postgresql"
url = "postgresql://backstay@db/postgres"
password = { file = "/run/secrets/orders" }

[instance.metrics]
engine = "influxdb"
url = "http://influx:8086"

[instance.sessions]
engine = "redis"
url = "redis://cache:6379"

[policy]
base = "0 2 * * *"
keep = { daily = 30, weekly = 52, monthly = 12 }
drill = "0 4 * * SUN#1"
rpo = "5s"
rto = "30m"
"#;

fn resolve(text: &str) -> Result<Config> {
    Config::resolve(Path::new("backstay.toml"), text, &Overlays::default())
}

fn told(text: &str) -> String {
    let error = resolve(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let hints: Vec<String> = error.hints().iter().map(|hint| format!("\nhint: {hint}")).collect();
    format!("{error}{}", hints.concat())
}

#[test]
fn three_databases_fit_twenty_lines() {
    let config = resolve(THREE).unwrap();
    assert!(THREE.lines().filter(|line| !line.is_empty()).count() <= 20);
    let names: Vec<&str> = config.settings.instance.keys().map(InstanceId::as_str).collect();
    assert_eq!(names, ["metrics", "orders", "sessions"]);
    let without_address = THREE.replace("url = \"http://influx:8086\"\n", "");
    assert_ne!(without_address, THREE);
    let (_, metrics) = config.instance("metrics").unwrap();
    assert!(metrics.url().is_some());
    assert!(resolve(&without_address).unwrap().instance("metrics").unwrap().1.url().is_none());
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_known_key() {
    let text = THREE.replace("daily", "dialy");
    assert_eq!(
        told(&text),
        "backstay.toml line 20: unknown key `dialy` in [policy.keep]\n\
         hint: the nearest known key in [policy.keep] is `daily`"
    );
    let text = THREE.replace("[policy]", "[polcy]");
    assert!(
        told(&text).starts_with("backstay.toml line 18: unknown key `polcy` at the top\n"),
        "{}",
        told(&text)
    );
}

#[test]
fn a_key_of_another_engine_is_unknown() {
    let text = THREE.replace("url = \"redis://cache:6379\"", "max_rate = \"1MB\"");
    assert!(told(&text).contains("unknown key `max_rate` in [instance.sessions]"), "{}", told(&text));
}

#[test]
fn several_mistakes_are_told_at_once() {
    let text = THREE.replace("daily", "dialy").replace("store", "stoer");
    let told = told(&text);
    assert!(told.starts_with("the configuration has 2 errors:\n  backstay.toml line 2: "), "{told}");
    assert!(told.contains("is `daily`") && told.contains("is `store`"), "{told}");
}

#[test]
fn a_value_that_does_not_fit_names_its_line() {
    for (from, to, expected) in [
        ("\"5s\"", "\"5 seconds\"", "backstay.toml line 22: `policy.rpo`: \"5 seconds\" is not a duration"),
        (
            "\"0 2 * * *\"",
            "\"nightly\"",
            "backstay.toml line 19: `policy.base`: \"nightly\" is not a schedule",
        ),
        ("30,", "-1,", "backstay.toml line 20: `policy.keep.daily`: "),
        ("[instance.orders]", "[instance.Orders]", "backstay.toml line 5: "),
        (
            "\"redis\"",
            "\"reddis\"",
            "backstay.toml line 15: [instance.sessions] has an `engine` that is not known",
        ),
        ("engine = \"redis\"\n", "", "backstay.toml line 14: [instance.sessions] has no `engine`"),
        (
            "store = \"file:///var/lib/backstay\"\n",
            "",
            "backstay.toml line 1: `repository`: missing field `store`",
        ),
    ] {
        let told = told(&THREE.replacen(from, to, 1));
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn a_password_in_the_file_is_refused_and_not_repeated() {
    for (from, to) in [
        ("{ file = \"/run/secrets/orders\" }", "\"hunter2\""),
        ("backstay@db", "backstay:hunter2@db"),
        ("db/postgres\"", "db/postgres?password=hunter2\""),
    ] {
        let told = told(&THREE.replacen(from, to, 1));
        assert!(told.contains("backstay.toml line ") && !told.contains("hunter2"), "{told}");
    }
}

#[test]
fn a_flag_goes_over_the_environment_and_that_over_the_file() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let overlays = Overlays {
        variables: vec![
            variable("BACKSTAY_POLICY__RPO", "1s"),
            variable("BACKSTAY_POLICY__RTO", "10m"),
            variable("BACKSTAY_POLICY__KEEP__DAILY", "7"),
            variable("BACKSTAY_INSTANCE__ORDERS__URL", "postgresql://backstay@other/postgres"),
            variable("BACKSTAY_INSTANCE__ORDERS__PASSWORD", "unused"),
            variable("BACKSTAY_LOG", "debug"),
        ],
        assignments: vec![variable("policy.rpo", "2s")],
    };
    let failed = Config::resolve(Path::new("b"), THREE, &overlays).unwrap_err().to_string();
    assert!(failed.starts_with("environment BACKSTAY_INSTANCE__ORDERS__PASSWORD: "), "{failed}");

    let overlays = Overlays {
        variables: overlays.variables.into_iter().filter(|(name, _)| !name.ends_with("PASSWORD")).collect(),
        ..overlays
    };
    let config = Config::resolve(Path::new("b"), THREE, &overlays).unwrap();
    let rows = origin::shown(&config);
    let row = |key: &str| {
        let row = rows.iter().find(|row| row.key == key).unwrap_or_else(|| panic!("no {key} in {rows:?}"));
        (row.value.as_ref().map(|value| value.to_string()).unwrap_or_default(), row.origin.clone())
    };
    let pair = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(row("policy.rpo"), pair("\"2s\"", "flag --set policy.rpo"));
    assert_eq!(row("policy.rto"), pair("\"10m\"", "environment BACKSTAY_POLICY__RTO"));
    assert_eq!(row("policy.keep.daily"), pair("7", "environment BACKSTAY_POLICY__KEEP__DAILY"));
    assert_eq!(row("policy.keep.weekly"), pair("52", "b line 20"));
    assert_eq!(row("repository.compression_level"), pair("2", "default"));
    assert_eq!(row("instance.orders.password"), pair("\"**** from file /run/secrets/orders\"", "b line 8"));
    assert!(row("instance.orders.url").1.starts_with("environment "));
}

#[test]
fn a_variable_that_means_nothing_is_an_error() {
    let overlays = Overlays {
        variables: vec![("BACKSTAY_POLICY__RPOO".to_owned(), "1s".to_owned())],
        ..Overlays::default()
    };
    let error = Config::resolve(Path::new("b"), THREE, &overlays).unwrap_err();
    assert!(
        error.to_string().starts_with("environment BACKSTAY_POLICY__RPOO: unknown key `rpoo`"),
        "{error}"
    );
    assert!(error.hints()[0].ends_with("`rpo`"));
}

#[test]
fn an_instance_goes_over_the_common_policy() {
    let text = format!("{THREE}\n[instance.orders.policy]\nrpo = '1s'\nkeep = {{ last = 3 }}\n");
    let config = resolve(&text).unwrap();
    let policy = config.policy(config.instance("orders").unwrap().1);
    assert_eq!(policy.rpo.unwrap().to_string(), "1s");
    assert_eq!(policy.rto.unwrap().to_string(), "30m");
    assert_eq!(policy.keep.unwrap(), settings::KeepSettings { last: Some(3), ..Default::default() });
}

#[test]
fn an_unknown_instance_names_the_nearest() {
    let error = resolve(THREE).unwrap().instance("order").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.hints(), ["the nearest name in backstay.toml is `orders`"]);
}

#[test]
fn the_reference_names_every_key_with_its_meaning() {
    let reference = reference::markdown();
    for key in ["`store` | required", "`data_directory`", "`keep.daily`", "`compression_level` | `2`"] {
        assert!(reference.contains(key), "{key} is not in\n{reference}");
    }
    assert!(!reference.contains("|  |"), "a key without a meaning in\n{reference}");
}

#[test]
fn the_schema_closes_every_table() {
    fn walk(value: &serde_json::Value, path: &str) {
        if let Some(table) = value.as_object() {
            if table.contains_key("properties") {
                let closed = table.get("additionalProperties").is_some_and(|more| more == false);
                assert!(closed, "{path} takes any key");
            }
            table.iter().for_each(|(key, value)| walk(value, &format!("{path}/{key}")));
        } else if let Some(items) = value.as_array() {
            items.iter().enumerate().for_each(|(n, value)| walk(value, &format!("{path}/{n}")));
        }
    }
    walk(&schema::json_schema(), "");
}
