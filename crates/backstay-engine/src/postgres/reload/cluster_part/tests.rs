use std::fmt::Write as _;

use backstay_model::ErrorKind;
use backstay_model::error::Classified;

use super::*;

const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";
const WHOLE: &str = "--\n-- PostgreSQL database cluster dump complete\n--\n\n";

/// As `pg_dumpall` of a version with `\restrict` writes it.
fn script(parts: &[(&str, &str)]) -> String {
    let mut script = "--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict outer\n\nCREATE ROLE app;\n\
                      ALTER ROLE app WITH PASSWORD 'x\\';\n\n\\unrestrict outer\n\n"
        .to_owned();
    for (connect, body) in parts {
        let _ = write!(
            script,
            "--\n-- Database \"…\" dump\n--\n\n--\n-- PostgreSQL database dump\n--\n\n\\restrict k1\n\n\
             -- Dumped from database version 17.6\n-- Dumped by pg_dump version 17.7 (Debian)\n\n\
             CREATE DATABASE x WITH TEMPLATE = template0;\n\\unrestrict k1\n{connect}\n\\restrict k1\n\n\
             {body}\n{END}\\unrestrict k1\n\n"
        );
    }
    script + WHOLE
}

fn part(script: &str, database: &str, piece: usize) -> Result<String> {
    let mut part = ClusterPart::of(database);
    let mut out = Vec::new();
    for bytes in script.as_bytes().chunks(piece) {
        out.extend(part.push(bytes)?);
    }
    part.finish()?;
    Ok(String::from_utf8(out).unwrap())
}

/// However the bytes are cut, the same comes out.
fn parted(script: &str, database: &str) -> String {
    let out = part(script, database, script.len()).unwrap();
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(part(script, database, piece).unwrap(), out, "in pieces of {piece}");
    }
    out
}

fn contents(script: &str) -> Result<ClusterContents> {
    let mut scan = ClusterScan::default();
    script.as_bytes().chunks(11).try_for_each(|bytes| scan.push(bytes))?;
    scan.finish()
}

#[test]
fn a_database_comes_out_without_the_others_and_with_its_end() {
    let all = script(&[
        ("\\connect template1", "CREATE TABLE of_template ();"),
        ("\\connect shop", "CREATE TABLE a (x text);\nCOPY a (x) FROM stdin;\none\n\\.\nSELECT 1;"),
        ("\\connect other", "CREATE TABLE b ();"),
    ]);
    let shop = parted(&all, "shop");
    assert!(
        shop.contains("CREATE TABLE a (x text);\nCOPY a (x) FROM stdin;\none\n\\.\nSELECT 1;\n"),
        "{shop}"
    );
    for other in ["of_template", "CREATE TABLE b", "app", "\\restrict", "\\connect", "CREATE DATABASE"] {
        assert!(!shop.contains(other), "{other}: {shop}");
    }
    assert!(shop.ends_with("-- PostgreSQL database dump complete\n--\n\n"), "{shop}");
    assert!(parted(&all, "other").contains("CREATE TABLE b ();"));
    let contents = contents(&all).unwrap();
    assert_eq!(contents.databases, ["template1", "shop", "other"]);
    assert_eq!(contents.server_version.as_deref(), Some("17.6"));
    assert_eq!(contents.tool_version.as_deref(), Some("17.7 (Debian)"));
}

#[test]
fn rows_quotes_and_bodies_may_hold_what_looks_like_the_lines_between_statements() {
    let lure = format!("\\connect other\n{END}\\restrict x\nCOPY a FROM stdin;\n;\n\\! touch /tmp/x\n");
    let bodies = [
        // Only a line of `\.` alone ends rows.
        format!("COPY public.a (x) FROM stdin;\n{lure}\\.x\n \\.\n\\\\.\n'\n$$\n/*\n\\.\n"),
        "COPY \"from stdin;\" (x) FROM stdin;\n\\.\n".to_owned(),
        format!("CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $_$\n{lure}$x$ $_ '\n$_$;\n"),
        format!("CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $$\n{lure}$$;\n"),
        format!("INSERT INTO a VALUES ('it''s\n{lure}');\n"),
        format!("INSERT INTO a VALUES (E'it\\'s\n{lure} \\\\', U&'\\0061\\');\n"),
        format!("INSERT INTO \"a\"\"\n{lure}\" VALUES ($1$2);\n").replace("$1$2", "1"),
        format!("/* a /* b */\n{lure}*/ SELECT 1 -- {}\n;\n", "it's \" $$"),
        "CREATE FUNCTION h() RETURNS int LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n\
         ALTER DATABASE x RESET ALL;\n END;\n"
            .to_owned(),
        "CREATE OR REPLACE PROCEDURE p()\n BEGIN ATOMIC\n SELECT 1;\n UPDATE pg_catalog.pg_database SET x = 1;\nEND;\n"
            .to_owned(),
        "CREATE RULE r AS ON INSERT TO a DO (SELECT 1; DROP DATABASE x; SELECT 2);\n".to_owned(),
        "SET standard_conforming_strings = off;\nSELECT 'a\\';\\connect x\n\\'';\n\
         SET standard_conforming_strings = on;\nSELECT 'a\\';\n"
            .to_owned(),
        "SELECT a$b$ FROM x$b$;\nSELECT 1 - -1 / 2, 'b' '$$';\n".to_owned(),
        format!("INSERT INTO public.pg_database VALUES ('{}');\n", "long ".repeat(40_000)),
    ];
    for body in bodies {
        let all = script(&[("\\connect shop", &body), ("\\connect other", "SELECT 'other';")]);
        let shop = parted(&all, "shop");
        assert!(shop.contains(&body), "{body}\n---\n{shop}");
        assert!(!shop.contains("SELECT 'other'"), "{shop}");
        assert_eq!(contents(&all).unwrap().databases, ["shop", "other"], "{body}");
    }
}

#[test]
fn names_are_read_as_pg_dumpall_writes_them() {
    for (connect, name) in [
        ("\\connect shop", "shop"),
        ("\\connect \"Shop.2\"", "Shop.2"),
        ("\\connect -reuse-previous=on \"dbname='a b'\"", "a b"),
        ("\\connect -reuse-previous=on \"dbname='it\\'s a \\\\ \"\"b\"\"'\"", "it's a \\ \"b\""),
        ("\\connect -reuse-previous=on \"dbname='dbname=x'\"", "dbname=x"),
        ("\\connect -reuse-previous=on \"dbname=plain-one\"", "plain-one"),
        ("\\connect \"dbname='a b'\"", "a b"),
    ] {
        let all = script(&[(connect, "SELECT 'this';"), ("\\connect other", "SELECT 'that';")]);
        let out = parted(&all, name);
        assert!(out.contains("SELECT 'this'") && !out.contains("SELECT 'that'"), "{connect}: {out}");
    }
}

#[test]
fn what_is_about_a_database_itself_is_left_out() {
    let mut body = String::new();
    let of_it = [
        "ALTER DATABASE shop SET work_mem TO '7MB';",
        "ALTER DATABASE \"a b\" OWNER TO app;",
        "ALTER ROLE \"app\" IN DATABASE shop SET search_path TO 'x', 'y';",
        "COMMENT ON DATABASE shop IS 'a; b';",
        "SECURITY LABEL FOR x ON DATABASE shop IS 'y';",
        "GRANT CREATE,CONNECT ON DATABASE shop TO app;",
        "REVOKE CONNECT,TEMPORARY ON DATABASE shop FROM PUBLIC;",
        "UPDATE pg_catalog.pg_database SET datistemplate = false WHERE datname = 'shop';",
    ];
    let others = [
        "ALTER ROLE app SET work_mem TO '7MB';",
        "GRANT SELECT ON TABLE public.database TO app;",
        "COMMENT ON TABLE database IS 'ON DATABASE';",
        "ALTER TABLE database ADD COLUMN database text;",
        "INSERT INTO public.pg_database VALUES (1);",
        "CREATE TABLE database (x text DEFAULT 'on database');",
    ];
    for statement in of_it.iter().chain(&others) {
        body += &format!("{statement}\n\n");
    }
    // Settings of a database come into force with another connection to it.
    body += "\\connect shop\nSET a = 1;\n";
    let out = parted(&script(&[("\\connect shop", &body)]), "shop");
    for statement in of_it {
        assert!(!out.contains(statement), "{statement}: {out}");
    }
    for statement in others.iter().chain(&["SET a = 1;"]) {
        assert!(out.contains(statement), "{statement}: {out}");
    }
}

#[test]
fn what_is_cut_off_missing_or_strange_is_refused() {
    let all = script(&[
        ("\\connect shop", "COPY a FROM stdin;\n1\n\\.\nSELECT 'x';"),
        ("\\connect other", "SELECT 1;"),
    ]);
    for end in 0..all.trim_end().len() - "\n--".len() {
        if !all.is_char_boundary(end) {
            continue;
        }
        let error = part(&all[..end], "shop", 50).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{end}: {error}");
        assert!(contents(&all[..end]).is_err(), "{end}");
    }
    let missing = part(&all, "Shop", 50).unwrap_err().to_string();
    assert!(missing.contains("Shop") && missing.contains("shop, other"), "{missing}");
    let joined = all.replacen(END, "", 1);
    assert!(part(&joined, "shop", 50).unwrap_err().to_string().contains("database shop end before"));
    for strange in
        ["\\! touch x\n", "\\copy a FROM PROGRAM 'x'\n", "\\i x\n", "SELECT 1 \\gexec\n", "\\connectx y\n"]
    {
        let all = script(&[("\\connect shop", strange), ("\\connect other", "SELECT 1;")]);
        let error = part(&all, "shop", 50).unwrap_err();
        assert!(error.to_string().contains("command to `psql`"), "{strange}: {error}");
    }
    let long = format!("\\connect {}\n", "a".repeat(100_000));
    assert!(part(&script(&[(&long, "")]), "shop", 50).is_err());
    // A long comment is one all the same.
    let comment = format!("-- {}\nSELECT 'after';", "x".repeat(100_000));
    assert!(parted(&script(&[("\\connect shop", &comment)]), "shop").contains("\nSELECT 'after';"));
}

#[test]
fn roles_alone_are_a_whole_script_without_databases() {
    assert_eq!(contents(&script(&[])).unwrap().databases, Vec::<String>::new());
}
