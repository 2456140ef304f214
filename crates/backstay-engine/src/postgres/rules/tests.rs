use super::*;

#[test]
fn what_the_server_leaves_out_is_left_out() {
    for path in [
        "postmaster.pid",
        "postmaster.opts",
        "postgresql.auto.conf.tmp",
        "backup_label",
        "tablespace_map",
        "backup_manifest",
        "recovery.signal",
        "standby.signal",
        "global/pg_internal.init",
        "global/pg_internal.init.4711",
        "base/5/pg_internal.init",
        "base/pgsql_tmp",
        "base/pgsql_tmp/pgsql_tmp123.0",
        "pg_tblspc/16385/PG_15_202209061/pgsql_tmp",
        "base/5/t3_16384",
        "base/5/t3_16384_fsm",
        "base/5/t12_16384.1",
        "pg_tblspc/16385/PG_15_202209061/5/t3_16384",
        "global/pg_control.backstay-restoring",
    ] {
        assert_eq!(verdict(path), Verdict::Skip, "{path}");
    }
}

#[test]
fn what_looks_like_it_but_is_not_is_copied() {
    for path in [
        "PG_VERSION",
        "postgresql.auto.conf",
        "base",
        "base/5/16384",
        "base/5/16384_init",
        "base/5/pg_filenode.map",
        "global/pg_control",
        "log/backup_label",
        "log/t3_16384",
        "base/5/t3_x",
        "base/5/tt_1",
        "pg_xact/0000",
        "pg_tblspc",
        "pg_tblspc/16385",
        "my/pg_wal",
    ] {
        assert_eq!(verdict(path), Verdict::Copy, "{path}");
    }
}

#[test]
fn directories_of_the_running_server_are_emptied() {
    for path in EMPTIED {
        assert_eq!(verdict(path), Verdict::Empty, "{path}");
    }
    assert_eq!(wal_directories(16), ["pg_wal/archive_status"]);
    assert_eq!(wal_directories(17), ["pg_wal/archive_status", "pg_wal/summaries"]);
}

#[test]
fn files_of_relations_are_told_from_their_neighbours() {
    let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
    for (path, expected) in [
        ("base/5/16384", file(16384, Fork::Main, 0)),
        ("base/5/16384.3", file(16384, Fork::Main, 3)),
        ("base/5/16384_fsm", file(16384, Fork::FreeSpaceMap, 0)),
        ("base/5/16384_vm.1", file(16384, Fork::VisibilityMap, 1)),
        ("base/5/16384_init", file(16384, Fork::Init, 0)),
        ("global/1262", file(1262, Fork::Main, 0)),
        ("pg_tblspc/16385/PG_15_202209061/5/1234", file(1234, Fork::Main, 0)),
        ("global/pg_control", None),
        ("base/5/pg_filenode.map", None),
        ("base/5/PG_VERSION", None),
        ("base/5/16384_old", None),
        ("base/5/16384.", None),
        ("base/5/+1", None),
        ("base/16384", None),
        ("pg_xact/0000", None),
        ("pg_multixact/members/0000", None),
        ("pg_tblspc/16385/1234", None),
        ("base/5/t3_16384", None),
    ] {
        assert_eq!(relation_file(path), expected, "{path}");
    }
}

#[test]
fn an_unlogged_relation_keeps_only_its_init_fork() {
    let names = ["16384", "16384.1", "16384_fsm", "16384_init", "16390", "PG_VERSION"];
    let unlogged = Unlogged::among(names.into_iter());
    let kept: Vec<&str> = names.into_iter().filter(|name| !unlogged.drops(name)).collect();
    assert_eq!(kept, ["16384_init", "16390", "PG_VERSION"]);
}

#[test]
fn a_tablespace_is_known_by_its_number() {
    assert_eq!(tablespace_of("pg_tblspc/16385"), Some(16385));
    assert_eq!(tablespace_of("pg_tblspc/x"), None);
    assert_eq!(tablespace_of("base/5"), None);
    assert_eq!(tablespace_containing("pg_tblspc/16385/PG_15/5"), Some((16385, "PG_15/5")));
    assert_eq!(tablespace_containing("pg_tblspc/16385"), None);
}

#[test]
fn pages_are_the_unit_of_relations_only() {
    assert_eq!(unit_of("base/5/16384", 1 << 30, 8192), 8192);
    assert_eq!(unit_of("base/5/16384", 1 << 30, 32768), 32768);
    assert_eq!(unit_of("pg_wal/000000010000000000000003", 16 << 20, 8192), 128 << 10);
    assert_eq!(unit_of("log/postgresql.log", 5 << 20, 8192), 128 << 10);
    assert_eq!(unit_of("PG_VERSION", 3, 32768), 8192);
}
