#!/usr/bin/env python3
"""Brings backups out of a Backstay repository without Backstay.

    backstay-rescue.py --repository DIR --key FILE list
    backstay-rescue.py --repository DIR --key FILE show BACKUP [--files]
    backstay-rescue.py --repository DIR --key FILE check [BACKUP]
    backstay-rescue.py --repository DIR --key FILE restore INSTANCE [BACKUP|latest] DIR
    backstay-rescue.py --repository DIR --key FILE log INSTANCE [BACKUP|latest] DIR

Needs Python 3.9 or newer, backstay_format.py and backstay_log.py beside it, and `pip install cryptography zstandard blake3`. A pass phrase
instead of a key file (--passphrase-file FILE) also needs cryptography 44 or newer, or argon2-cffi.

Exit codes: 0 well, 1 a fault of this program, 2 wrong arguments, 3 not found, 4 a directory is not empty or too small,
5 the key does not fit, 6 cannot be read or written, 7 a newer format, 8 damaged, 10 interrupted; check ends with 0 sound,
20 findings, 21 could not look; log ends with 20 where a hole ends it."""

import argparse
import json
import os
import re
import shutil
import sys
import time

sys.dont_write_bytecode = True  # the directory of the kit stays as it is
try:
    from backstay_format import (
        CONFLICT, CORRUPT, DIRECTORY, FILE, INVALID, NOT_FOUND, PACK, SYMLINK, UNAVAILABLE,
        Backup, Problem, Repository, reading)
    from backstay_log import Log, shown
except ImportError as missing:
    if missing.name in ("backstay_format", "backstay_log"):
        sys.exit(f"error: {missing.name}.py is missing\nhint: it belongs into the directory of backstay-rescue.py")
    sys.exit(f"error: the Python module {missing.name} is missing\nhint: pip install cryptography zstandard blake3")

FINDINGS, COULD_NOT_LOOK, INTERRUPTED = 20, 21, 10
CONTROL, UNFINISHED = "global/pg_control", ".unfinished"
CONFIGURATION, TABLESPACE_MAP = "postgresql.conf", "tablespace_map"
# Settings of a configuration that lay outside of the data directory, which lead back to the old cluster.
OLD_PLACES = rb"(?im)^(?=[ \t]*(?:data_directory|hba_file|ident_file|external_pid_file|include|include_dir|include_if_exists)\b)"


class Progress:
    """One line on a terminal, at most once a second; silent elsewhere."""

    def __init__(self, verb, total):
        self.verb, self.total, self.done, self.next = verb, total, 0, time.monotonic() + 1
        self.shown = False

    def add(self, count):
        self.done += count
        if time.monotonic() >= self.next and sys.stderr.isatty():
            self.next, self.shown = time.monotonic() + 1, True
            of = f" of {self.total >> 20} MiB, {100 * self.done // self.total} %" if self.total else " MiB"
            print(f"\r{self.verb} {self.done >> 20}{of} ", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.shown:
            print(file=sys.stderr)


def find(repository, session, instance=None):
    for name, found in repository.sessions(instance):
        if found == session:
            backup = Backup(repository, name, session)
            if backup.dead:
                raise Problem(NOT_FOUND, f"{session} was ended before it became a backup", "the command `list` shows all")
            return backup
    raise Problem(NOT_FOUND, f"there is no backup {session}" + (f" of {instance}" if instance else ""),
                  "the command `list` shows all")


def newest(repository, instance):
    """The newest manifest. One that cannot be read is an error, not a reason to take an older one in silence."""
    for _, session in repository.sessions(instance):
        try:
            backup = Backup(repository, instance, session)
        except Problem as problem:
            problem.hint = problem.hint or "name an older backup; the command `list` shows all"
            raise
        if not backup.dead:
            return backup
    names = ", ".join(sorted({name for name, _ in repository.sessions()})) or "none"
    raise Problem(NOT_FOUND, f"instance {instance} has no backup", f"instances with backups: {names}")


def run_list(repository, options):
    row = "{:<22}{:<20}{:<13}{:<22}{:>14}  {}"
    print(row.format("BACKUP", "INSTANCE", "TYPE", "FINISHED", "BYTES", "REMARK"))
    worst = 0
    for instance, session in repository.sessions():
        try:
            backup = Backup(repository, instance, session)
            if backup.dead:
                continue
            record = backup.record
            remark = f"{record['engine']} {record['engine_version']}"
            if os.path.exists(repository.path(f"{instance}/condemned/{session}")):
                remark += ", condemned"
            with reading(session):
                size = record["statistics"]["logical_bytes"]
                print(row.format(session, instance, record["type"], record["finished_at"][:19] + "Z", size, remark))
        except Problem as problem:
            print(row.format(session, instance, "?", "?", "?", problem))
            worst = problem.code
    return worst


def run_show(repository, options):
    backup = find(repository, options.backup)
    if options.files:
        for entry in backup.entries():
            kind = {FILE: "-", DIRECTORY: "d", SYMLINK: "l"}[entry.kind]
            print(f"{kind}{entry.mode:04o} {entry.size:>14} {entry.path}" + (f" -> {entry.target}" if entry.target else ""))
        return 0
    packs = [size for (kind, _, _), size in backup.objects.items() if kind == PACK]
    print(json.dumps(dict(backup.record, packs=len(packs), maps=len(backup.objects) - len(packs)), indent=2))
    return 0


def check_backup(backup, with_crc, opened, report):
    """Every object of the backup, every frame in it, then every file. `opened` remembers what needs no second look."""
    progress = Progress("checked", sum(backup.objects.values()))
    for key, size in sorted(backup.objects.items()):
        name = backup.name_of(key)
        if name not in opened:
            opened.add(name)
            try:
                container = backup.containers.of(key)
                for number in range(len(container.shapes)):
                    try:
                        container.frame(number)
                    except Problem as problem:
                        report(str(problem))
            except Problem as problem:
                report(str(problem))
        progress.add(size)
    files = content = 0
    try:
        for entry in backup.entries():
            if entry.kind == FILE:
                for _ in backup.content(entry, with_crc, report):
                    progress.add(0)
                files, content = files + 1, content + entry.size
    except Problem as problem:
        report(str(problem))
    progress.end()
    return files, content


def run_check(repository, options):
    if options.backup:
        chosen = [place for place in repository.sessions() if place[1] == options.backup]
        chosen = chosen or [find(repository, options.backup)]  # which says that there is none
    else:
        chosen = repository.sessions()
    findings, unseen, opened = 0, 0, set()
    for instance, session in chosen:
        found = []

        def report(text):
            found.append(text)
            print(f"{session}: {text}", flush=True)

        try:
            backup = Backup(repository, instance, session)
            if backup.dead:
                continue
            files, content = check_backup(backup, not options.no_crc, opened, report)
            if not found:
                print(f"{session}: sound, {files} files, {content} bytes", flush=True)
        except Problem as problem:
            report(str(problem))
        except OSError as error:
            unseen += 1
            print(f"{session}: could not look: {error}", flush=True)
        findings += len(found)
    return FINDINGS if findings else COULD_NOT_LOOK if unseen else 0


def refuse(text):
    raise Problem(CORRUPT, text)


def parse_tablespace_map(text):
    """{oid: location}; a backslash stands before a special character of a location."""
    lines = re.findall(r"(\d+) ((?:\\[\s\S]|[^\\\n])+)\n", text)
    return {oid: re.sub(r"\\([\s\S])", r"\1", place) for oid, place in lines}


def give(path, entry):
    """The owner as it was, where this process may; and the mode."""
    if os.geteuid() == 0:
        os.chown(path, entry.uid, entry.gid)
    os.chmod(path, entry.mode | (0o700 if entry.kind == DIRECTORY else 0))


def prepare(directory, places, need):
    """Refuses what is not empty and what is too small, before the first byte is written."""
    for place in [directory, *places]:
        if os.path.lexists(place) and (not os.path.isdir(place) or os.listdir(place)):
            raise Problem(CONFLICT, f"{place} is not an empty directory", "name another DIR, for a tablespace --tablespace OLD=NEW")
    above = os.path.abspath(directory)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    if shutil.disk_usage(above).free < need:
        raise Problem(CONFLICT, f"{above} has room for {shutil.disk_usage(above).free} bytes, {need} are needed")


def chosen_backup(repository, options):
    if options.backup == "latest":
        return newest(repository, options.instance)
    return find(repository, options.backup, options.instance)


def run_restore(repository, options):
    """global/pg_control gets its name at the very end, so nothing that is unfinished can be started."""
    directory, moves = options.directory, {}
    for move in options.tablespace:
        old, _, new = move.partition("=")
        if not (old.startswith("/") and new.startswith("/")):
            raise Problem(INVALID, f"--tablespace {move} is not OLD=NEW with two absolute paths")
        moves[old] = new
    backup = chosen_backup(repository, options)
    spaces, total, outside, owner, rewritten = {}, 0, 0, None, {}
    server = (backup.record.get("facts") or {}).get("server") or {}
    for entry in backup.entries():
        total += entry.size
        outside += entry.size if entry.path.startswith("pg_tblspc/") else 0
        owner = entry if entry.path in (CONTROL, "PG_VERSION") else owner
        if entry.path in (TABLESPACE_MAP, CONFIGURATION) and entry.size < 1 << 20:
            with reading(entry.path):
                text = b"".join(piece for _, piece in backup.content(entry, True, refuse))
                if entry.path == TABLESPACE_MAP:
                    spaces = parse_tablespace_map(text.decode())
                elif CONFIGURATION in server.get("outside_configuration", ()):
                    rewritten[CONFIGURATION] = re.sub(OLD_PLACES, b"#restored elsewhere: ", text)
    for old in set(moves) - set(spaces.values()):
        raise Problem(INVALID, f"no tablespace of this backup lay at {old}", "they lay at: " + (", ".join(spaces.values()) or "-"))
    spaces = {oid: moves.get(old, old) for oid, old in spaces.items()}
    if moves:
        lines = [f"{oid} " + re.sub(r"([\n\r\\])", r"\\\1", place) + "\n" for oid, place in spaces.items()]
        rewritten[TABLESPACE_MAP] = "".join(lines).encode()
    links = {oid: place for oid, place in spaces.items() if place.startswith("/")}  # a relative one lies inside
    prepare(directory, links.values(), total - outside if links else total)
    for place in [directory, *links.values()]:
        os.makedirs(place, 0o700, exist_ok=True)
        if owner:
            give(place, owner._replace(kind=DIRECTORY, mode=0o700))
    for oid, place in links.items():
        os.makedirs(os.path.join(directory, "pg_tblspc"), 0o700, exist_ok=True)
        os.symlink(place, os.path.join(directory, "pg_tblspc", oid))
    progress, late = Progress("restored", total), []
    for entry in backup.entries():
        path, above, name = os.path.join(directory, entry.path), *os.path.split(entry.path)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        if above == "pg_tblspc" and name in links:
            continue
        if entry.kind == SYMLINK:
            late.append((entry.target, path))
        elif entry.kind == DIRECTORY:
            os.makedirs(path, 0o700, exist_ok=True)
            give(path, entry)
        elif entry.path in rewritten:
            text = rewritten[entry.path]
            write(path, entry._replace(size=len(text)), [(0, text)], progress)
        else:
            content = backup.content(entry, not options.no_crc, refuse)
            write(path + (UNFINISHED if entry.path == CONTROL else ""), entry, content, progress)
    for target, path in late:  # after the files, so that nothing is written through a link
        os.symlink(target, path)
    os.sync()  # the data is on the disk before the name that makes it startable
    control = os.path.join(directory, CONTROL)
    if os.path.exists(control + UNFINISHED):
        os.rename(control + UNFINISHED, control)
        os.sync()
    progress.end()
    print(f"restored {backup.session} of {backup.instance}: {total} bytes in {directory}")
    if owner and not os.path.exists(os.path.join(directory, CONFIGURATION)):
        print(f"missing: {CONFIGURATION}, pg_hba.conf and pg_ident.conf lay outside of the data directory, and are yours to bring")
    if owner:
        print(f"next: pg_ctl -D {directory} -o '-c archive_mode=off' start")
    return 0


def run_log(repository, options):
    """The log behind a backup, on one way over the timelines, as files for a restore_command."""
    directory = os.path.abspath(options.directory)
    if re.search(r"['\"\\$`%\n]", directory):
        raise Problem(INVALID, f"{directory} cannot stand in a restore_command", "name a DIR without quotes, backslashes, $ and %")
    backup = chosen_backup(repository, options)
    log = Log(repository, backup, options.timeline, options.to)
    if log.reached[1] <= log.legs[0].begin:
        if log.hole:
            raise Problem(FINDINGS, f"the log behind {backup.session} begins with a hole: {log.hole}", "the backup starts without it")
        raise Problem(NOT_FOUND, f"no log is there behind {backup.session}", "the backup starts without one")
    owner = next((entry for entry in backup.entries() if entry.path == "PG_VERSION"), None)

    def give_file(path, mode):
        if owner and os.geteuid() == 0:
            os.chown(path, owner.uid, owner.gid)
        os.chmod(path, mode)

    timeline, end = log.reached
    prepare(directory, (), log.segments() * log.size)
    progress = Progress("wrote", log.segments() * log.size)
    existed = os.path.isdir(directory)
    os.makedirs(directory, 0o700, exist_ok=True)
    try:
        log.write(directory, give_file, progress.add)
    except Problem:
        if not existed and not os.listdir(directory):
            os.rmdir(directory)
        raise
    progress.end()
    count = log.segments()
    print(f"wrote the log of {backup.instance} behind {backup.session}: {count} segment{'s' * (count != 1)}, to {shown(end)} "
          f"of timeline {timeline}, in {directory}")
    if log.hole:
        print(f"hole: {log.hole}; a recovery ends there")
    print("next: make the file recovery.signal in the restored directory, and start with these settings:")
    print(f"  archive_mode = off\n  recovery_target_timeline = {log.follows}\n  restore_command = '\"{directory}/fetch\" %f \"%p\"'")
    return FINDINGS if log.hole else 0


def write(path, entry, content, progress):
    with open(path, "xb") as file:
        file.truncate(entry.size)
        for offset, piece in content:
            file.seek(offset)
            file.write(piece)
            progress.add(len(piece))
    give(path, entry)
    os.utime(path, (entry.modified, entry.modified))


def arguments():
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--repository", metavar="DIR", help="the directory that holds backstay.json (default: .)")
    shared.add_argument("--key", metavar="FILE", help="the key file")
    shared.add_argument("--passphrase-file", metavar="FILE", help="a file whose first line is the pass phrase")
    shared.add_argument("--no-crc", action="store_true", help="leave out CRC-32C; hashes and digests are always compared")
    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter, "parents": [shared]}
    parser = argparse.ArgumentParser(description=__doc__, **layout)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    verbs.add_parser("list", help="all backups, newest first", **layout)
    show = verbs.add_parser("show", help="what a backup says of itself", **layout)
    show.add_argument("backup", metavar="BACKUP")
    show.add_argument("--files", action="store_true", help="its table of files instead")
    check = verbs.add_parser("check", help="opens every frame, compares every hash, digest and CRC-32C", **layout)
    check.add_argument("backup", metavar="BACKUP", nargs="?")
    restore = verbs.add_parser("restore", help="puts a backup into an empty directory", **layout)
    restore.add_argument("instance", metavar="INSTANCE")
    restore.add_argument("backup", metavar="BACKUP", nargs="?", default="latest", help="an id, or latest (the default)")
    restore.add_argument("directory", metavar="DIR")
    restore.add_argument("--tablespace", metavar="OLD=NEW", action="append", default=[], help="puts a tablespace elsewhere")
    log = verbs.add_parser("log", help="writes the log behind a backup, as files for a restore_command", **layout)
    log.add_argument("instance", metavar="INSTANCE")
    log.add_argument("backup", metavar="BACKUP", nargs="?", default="latest", help="an id, or latest (the default)")
    log.add_argument("directory", metavar="DIR")
    log.add_argument("--timeline", metavar="N", type=int, help="the timeline to follow (default: the newest)")
    log.add_argument("--to", metavar="LSN", help="no further than this position, such as 0/3000028")
    options = parser.parse_args(namespace=argparse.Namespace(repository=".", key=None, passphrase_file=None, no_crc=False))
    options.run = {"list": run_list, "show": run_show, "check": run_check, "restore": run_restore, "log": run_log}[options.verb]
    return options


def main():
    options = arguments()
    try:
        return options.run(Repository(options.repository, options.key, options.passphrase_file), options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Problem, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        if getattr(problem, "hint", None):
            print(f"hint: {problem.hint}", file=sys.stderr)
        return getattr(problem, "code", COULD_NOT_LOOK if options.verb == "check" else UNAVAILABLE)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
