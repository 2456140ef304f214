//! The name that leads to the newest dump, where a house has its own or none.

use std::path::PathBuf;

use super::dumps::{dumping, shown};
use super::program::{Home, on_each_version, server};

fn links(home: &Home) -> Vec<(PathBuf, PathBuf)> {
    let links = shown(&home.path("dumps")).into_iter().filter(|path| path.is_symlink());
    links.map(|link| (link.clone(), std::fs::read_link(link).unwrap())).collect()
}

#[test]
fn the_name_of_the_newest_dump_is_the_one_that_is_set_and_none_where_none_is_wanted() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    let dump = |pointer: &str, more: &[&str]| {
        let setting = format!("dump.pointer={pointer}");
        home.run([&["--set", &setting, "dump", "orders", "--database", "postgres"], more].concat())
    };
    dump("none", &[]).good();
    assert_eq!(links(&home), []);
    for _ in 0..2 {
        let told = dump("newest/of_{database}.{ext}", &["--json"]).good().json();
        let path = told["dumps"][0]["paths"][0]["path"].as_str().unwrap();
        let expected = (home.path("dumps/newest/of_postgres.dump.zst"), PathBuf::from("..").join(path));
        assert_eq!(links(&home), [expected]);
    }
    let before = shown(&home.path("dumps"));
    dump("latest_{time}.{ext}", &[]).refused(2, &["dump.pointer"]);
    dump("daily/postgres_20240101_020000.{ext}", &[]).refused(2, &["the name", "dump.pointer", "\"none\""]);
    assert_eq!(shown(&home.path("dumps")), before);
}

#[test]
fn what_the_newest_leads_to_is_all_of_the_database_that_its_name_means() {
    on_each_version(|server| {
        server.sql("CREATE TABLE t AS SELECT 1 AS n; CREATE DATABASE shop").unwrap();
        server.sql_in("shop", "CREATE TABLE t AS SELECT 1 AS n").unwrap();
        let home = dumping(server);
        let with = |pointer: &str, words: &[&str]| {
            let setting = format!("dump.pointer={pointer}");
            home.run([&["--set", &setting, "dump", "orders", "--json"], words].concat()).good().json()
        };
        let path = |told: &serde_json::Value, of: &str| {
            let mut dumps = told["dumps"].as_array().unwrap().iter();
            let dump = dumps.find(|dump| dump["database"] == of).unwrap();
            dump["paths"][0]["path"].as_str().unwrap().to_owned()
        };

        // Of a whole server the database of the address, without the roles and the others.
        let whole = with("newest.{ext}", &[]);
        let newest = (home.path("dumps/newest.dump.zst"), PathBuf::from(path(&whole, "postgres")));
        let only_newest = vec![newest.clone()];
        assert_eq!(links(&home), only_newest);
        with("newest.{ext}", &["--database", "shop"]);
        with("newest.{ext}", &["--database", "postgres", "--table", "t"]);
        assert_eq!(links(&home), only_newest);

        let of_shop = with("newest_{database}.{ext}", &["--database", "shop"]);
        let of_shop = (home.path("dumps/newest_shop.dump.zst"), PathBuf::from(path(&of_shop, "shop")));
        with("newest_{database}.{ext}", &["--database", "shop", "--table", "t"]);
        assert!(links(&home).contains(&of_shop), "{:?}", links(&home));
        assert!(links(&home).contains(&newest), "that of another setting stays: {:?}", links(&home));
    });
}
