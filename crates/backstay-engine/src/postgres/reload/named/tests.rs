use std::collections::BTreeMap;

use super::*;

fn of(script: &str, content: &DumpContent) -> BTreeMap<String, StatementNeeds> {
    let scanned = |piece: usize| {
        let mut scan = ScriptScan::default();
        script.as_bytes().chunks(piece).for_each(|bytes| scan.push(bytes));
        let mut passing = ScriptScan::default();
        script.as_bytes().chunks(piece).for_each(|bytes| {
            let passed = passing.pass_rows(bytes);
            passing.push(&bytes[passed..]);
        });
        let (pushed, passed) = (scan.finish(), passing.finish());
        assert_eq!(pushed, passed, "in pieces of {piece}");
        pushed.of(content)
    };
    let found = scanned(script.len().max(1));
    for piece in [1, 2, 3, 7, 64, 1000] {
        assert_eq!(scanned(piece), found, "in pieces of {piece}");
    }
    found
}

/// Roles, tablespaces and extensions of a plain dump; `None`: nothing is said.
fn plain(script: &str) -> Option<[Vec<String>; 3]> {
    let found = of(script, &DumpContent::Database { database: "shop".into() });
    found.get("shop").map(listed)
}

fn listed(needs: &StatementNeeds) -> [Vec<String>; 3] {
    [&needs.roles, &needs.tablespaces, &needs.extensions].map(|names| names.iter().cloned().collect())
}

fn roles(script: &str) -> Vec<String> {
    plain(script).unwrap()[0].clone()
}

#[test]
fn every_form_that_pg_dump_writes_is_found_with_names_of_every_kind() {
    let script = r#"SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET default_tablespace = '';
CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;
CREATE EXTENSION hstore;
CREATE SCHEMA s AUTHORIZATION "s owner";
SET default_tablespace = "far away";
CREATE TABLE public.t (id integer);
SET default_tablespace = near;
ALTER TABLE public.t OWNER TO clerk;
ALTER FUNCTION public.f(a integer, "to" text) OWNER TO "Jürgen ""J""";
ALTER TABLE public."OWNER TO ""nobody"";" OWNER TO "Owner;";
SET SESSION AUTHORIZATION 'by text';
SET SESSION AUTHORIZATION DEFAULT;
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT SELECT("to"),INSERT ON TABLE public.role TO "reader" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA role REVOKE ALL ON TABLES FROM taken;
CREATE POLICY p ON public.t FOR SELECT TO looker, "o""k" USING ((x && '{1}'::integer[]));
CREATE USER MAPPING FOR mapped SERVER far OPTIONS ("user" 'nobody');
CREATE USER MAPPING FOR CURRENT_USER SERVER far;
"#;
    let [roles, tablespaces, extensions] = plain(script).unwrap();
    let expected = [
        "Jürgen \"J\"",
        "Owner;",
        "by text",
        "clerk",
        "looker",
        "maker",
        "mapped",
        "o\"k",
        "reader",
        "s owner",
        "taken",
    ];
    assert_eq!(roles, expected);
    assert_eq!(tablespaces, ["far away", "near"]);
    assert_eq!(extensions, ["hstore", "uuid-ossp"]);
}

#[test]
fn what_only_looks_like_a_statement_names_nobody() {
    let lure = "ALTER TABLE x OWNER TO nobody;\nGRANT ALL ON TABLE x TO nobody;\nSET default_tablespace = nowhere;\n\
                CREATE EXTENSION nothing;\nDO 1;\n";
    for body in [
        format!("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$\n{lure}$$;\n"),
        format!("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $_$\n$$ {lure}$_$;\n"),
        format!("CREATE FUNCTION f() RETURNS void LANGUAGE sql AS '\n{lure}';\n"),
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql\n    BEGIN ATOMIC\n SELECT 1;\n GRANT a TO nobody;\nEND;\n".to_owned(),
        format!("COPY public.t (x) FROM stdin;\n{lure}\\\\.\n\\.\n"),
        format!("INSERT INTO public.t VALUES ('it''s\n{lure}', E'it\\'s\n{lure}');\n"),
        format!("/* a /* b */\n{lure}*/ SELECT 1;\n"),
        format!("-- {}\n", lure.replace('\n', " ")),
        format!("COMMENT ON TABLE public.t IS '\n{lure}';\n"),
        format!("CREATE VIEW v AS SELECT '\n{lure}'::text AS \"{lure}\";\n"),
        "ALTER TABLE t ALTER COLUMN c SET DEFAULT E'\\' OWNER TO nobody; --';\n".to_owned(),
        "ALTER TABLE t ALTER COLUMN c SET DEFAULT $$ OWNER TO nobody$$;\n".to_owned(),
        "ALTER TABLE t /* OWNER TO nobody */ ENABLE ROW LEVEL SECURITY;\n".to_owned(),
        "ALTER TABLE t RENAME COLUMN owner TO nobody;\n".to_owned(),
        "ALTER FUNCTION f() SET my.owner TO nobody;\n".to_owned(),
        "CREATE INDEX i ON public.tablespace USING btree (x);\n".to_owned(),
        "ALTER TABLE t OWNER TO CURRENT_USER;\nGRANT ALL ON t TO PUBLIC, SESSION_USER;\n".to_owned(),
        "ALTER TABLE t OWNER TO :nobody;\nGRANT ALL ON t TO :\"nobody\";\n".to_owned(),
        "GRANT SELECT ON TABLE public.role TO PUBLIC;\nGRANT EXECUTE ON FUNCTION f(\"to\" a) TO PUBLIC;\n".to_owned(),
        "ALTER DATABASE shop OWNER TO nobody;\nGRANT ALL ON DATABASE shop TO nobody;\n".to_owned(),
        format!("ALTER TABLE \"{}\" OWNER TO nobody;\n", "long ".repeat(4000)),
        format!("ALTER TABLE t OWNER TO \"{}\";\n", "a".repeat(64)),
        "CREATE ROLE made;\nALTER TABLE t OWNER TO made;\n".to_owned(),
        "SET default_tablespace = DEFAULT;\nSET SESSION AUTHORIZATION DEFAULT;\n".to_owned(),
    ] {
        let script = format!("{body}ALTER TABLE t OWNER TO clerk;\n");
        assert_eq!(plain(&script).unwrap(), [vec!["clerk".to_owned()], vec![], vec![]], "{body}");
    }
}

#[test]
fn names_in_an_encoding_that_is_not_told_are_passed_over() {
    let statement = "ALTER TABLE t OWNER TO \"Jürgen\";\n";
    assert_eq!(roles(&format!("SET client_encoding = 'UTF8';\n{statement}")), ["Jürgen"]);
    assert_eq!(roles(&format!("SET client_encoding = 'LATIN1';\n{statement}")), [""; 0]);
    assert_eq!(roles(statement), [""; 0]);
    let mut scan = ScriptScan::default();
    scan.push(b"SET client_encoding = 'UTF8';\nALTER TABLE t OWNER TO \"J\xfcrgen\";\n");
    let found = scan.finish().of(&DumpContent::Database { database: "shop".into() });
    assert_eq!(found["shop"], StatementNeeds::default());
}

#[test]
fn of_statements_that_may_make_roles_and_of_those_that_are_cut_nothing_is_said() {
    let named = "ALTER TABLE t OWNER TO clerk;\n";
    for strange in [
        "DO $$ BEGIN CREATE ROLE clerk; END $$;\n",
        "CALL make_roles();\n",
        "ALTER ROLE a RENAME TO clerk;\n",
        "/* x */ CREATE ROLE clerk;\n",
        "SELECT 1 \\gexec\n",
        "\\connect other\n",
    ] {
        assert_eq!(plain(&format!("{strange}{named}")), None, "{strange}");
    }
    assert_eq!(plain(&format!("{named}COPY t FROM stdin;\n1\n")), None);
    assert_eq!(plain(&format!("{named}ALTER TABLE t")), None);
    let many: String = (0..=NAMES_MAX).map(|n| format!("ALTER TABLE t OWNER TO r{n};\n")).collect();
    let mut scan = ScriptScan::default();
    scan.push(many.as_bytes());
    assert_eq!(scan.finish(), ScriptNames::default());
}

#[test]
fn each_database_of_a_cluster_has_its_own_and_the_roles_before_them_count_for_none() {
    let script = "CREATE ROLE app;\nALTER TABLESPACE x OWNER TO before;\n\\connect template1\n\\restrict k\n\
                  \\unrestrict k\n\\connect -reuse-previous=on \"dbname='a b'\"\nALTER TABLE t OWNER TO app;\n\
                  \\connect shop\nCREATE EXTENSION IF NOT EXISTS hstore;\nGRANT ALL ON t TO taker;\n\
                  \\connect strange\nDO $$ $$;\nALTER TABLE t OWNER TO nobody;\n\
                  \\connect shop\nSET default_tablespace = far;\n";
    let databases = ["template1", "a b", "shop", "strange"].map(str::to_owned).to_vec();
    let found = of(script, &DumpContent::Cluster { databases });
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let found: BTreeMap<&str, [Vec<String>; 3]> =
        found.iter().map(|(name, needs)| (name.as_str(), listed(needs))).collect();
    let expected = [
        ("a b", [list(&["app"]), list(&[]), list(&[])]),
        ("shop", [list(&["taker"]), list(&["far"]), list(&["hstore"])]),
        ("template1", [list(&[]), list(&[]), list(&[])]),
    ];
    assert_eq!(found, expected.into());
    assert!(of(script, &DumpContent::Globals).is_empty());
}

#[test]
fn of_roles_that_an_extension_may_make_nothing_is_said_and_of_the_extension_it_is() {
    let script = "CREATE EXTENSION IF NOT EXISTS pg_tle;\nGRANT ALL ON TABLE t TO pgtle_admin;\nSET default_tablespace = far;\n";
    let [roles, tablespaces, extensions] = plain(script).unwrap();
    assert_eq!((roles, tablespaces, extensions), (vec![], vec!["far".to_owned()], vec!["pg_tle".to_owned()]));
}

#[test]
fn a_database_whose_name_cannot_be_read_leaves_nothing_to_the_one_before() {
    let mut scan = ScriptScan::default();
    scan.push(
        b"\\connect harmless\nGRANT ALL ON t TO one;\n\\connect \"j\xfcrgen\"\nGRANT ALL ON t TO two;\n",
    );
    let content = DumpContent::Cluster { databases: vec!["harmless".to_owned()] };
    let found = scan.finish().of(&content);
    let roles: Vec<_> = found.values().flat_map(|needs| &needs.roles).collect();
    assert_eq!(roles, ["one"]);
}

#[test]
fn a_script_with_more_names_than_a_sidecar_can_hold_says_none() {
    for kind in ["CREATE ROLE r", "GRANT ALL ON TABLE t TO r"] {
        let script: String = (0..NAMES_MAX + 1).map(|number| format!("{kind}{number};\n")).collect();
        let found = of(&script, &DumpContent::Database { database: "shop".to_owned() });
        assert!(found.is_empty(), "{kind}: {}", found.len());
    }
}

#[test]
fn a_routine_may_be_called_begin() {
    let script = "CREATE FUNCTION public.begin() RETURNS integer LANGUAGE sql AS $$SELECT 1$$;\n\
                  CREATE FUNCTION f(begin integer) RETURNS integer LANGUAGE sql\n BEGIN ATOMIC\n SELECT begin;\n\
                  SELECT CASE WHEN true THEN 1 END;\nEND;\nGRANT ALL ON TABLE t TO reader;\n";
    let [roles, ..] = plain(script).unwrap();
    assert_eq!(roles, ["reader"]);
}
