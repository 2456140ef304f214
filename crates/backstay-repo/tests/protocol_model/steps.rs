//! The store and the processes of the model, and every step that one can make.

/// Which rule is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Full,
    /// A writer chooses its parent without having said so.
    NoIntent,
    /// A writer does not look for the marker after its intent is stored.
    NoSecondLook,
    /// A writer looks at the manifest first and at the marker, which may have been
    /// cleaned up by then, last.
    MarkerLast,
    /// Retention deletes although a session names the backup.
    NoBackOff,
    /// Retention takes the marker back when it backs off.
    TakeMarkerBack,
    /// The collector reads backups, then lists intents, then data objects.
    BackupsFirst,
    /// The collector believes its own verdict and writes no tombstone.
    LeaseOnly,
    /// A writer overwrites the tombstone.
    BlindCommit,
    /// The collector takes no account of maps that a backup shares with its parent.
    PacksOnly,
    /// Backups are listed once, as if a listing were a moment.
    OneListing,
    /// Listed once, and one that is gone when it is read is passed over.
    SkipVanished,
    /// A writer removes its intent although it does not know how its commit ended.
    CloseUnknown,
}

pub const WEAKENED: [Variant; 12] = [
    Variant::NoIntent,
    Variant::NoSecondLook,
    Variant::MarkerLast,
    Variant::NoBackOff,
    Variant::TakeMarkerBack,
    Variant::BackupsFirst,
    Variant::LeaseOnly,
    Variant::BlindCommit,
    Variant::PacksOnly,
    Variant::OneListing,
    Variant::SkipVanished,
    Variant::CloseUnknown,
];

/// Backups: 0 is the old one, writer `w` commits as `w + 1`.
const OLD: usize = 0;
const BACKUPS: usize = 3;
/// Data objects as bits: of the old backup a pack and a map, of each writer a pack.
/// A child needs its own and those of its parent.
type Objects = u8;

fn objects_of(backup: usize) -> Objects {
    [0b0011, 0b0100, 0b1000][backup]
}

const MAPS: Objects = 0b0010;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Commit {
    Manifest(Objects),
    Tombstone,
}

/// What the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Store {
    objects: Objects,
    /// Per writer: `Some(names the old backup)` while its intent is there.
    intents: [Option<bool>; 2],
    commits: [Option<Commit>; BACKUPS],
    condemned: bool,
    /// A commit that a writer gave up waiting for and that the network still holds.
    late_commit: [Option<Objects>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Begin,
    LookForMarker,
    LookForManifest { marker_last: bool },
    LookForMarkerLast(Objects),
    Upload { needs: Objects },
    Commit { needs: Objects },
    Close,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Retention {
    Condemn,
    ListIntents { next: usize, named: bool },
    DeleteManifest,
    DeleteMarker,
    Done,
}

/// How far one listing of `backups/` has come. Pages are taken in an order that
/// the model chooses, since a store promises none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Collector {
    ListObjects,
    ListIntents {
        objects: Objects,
    },
    Judge {
        objects: Objects,
        live: [bool; 2],
        next: usize,
    },
    /// `looked` and `listed` are bits of backups; `needed` is what those that were read need.
    ListBackups {
        objects: Objects,
        live: [bool; 2],
        needed: Objects,
        looked: u8,
        listed: u8,
        pass: u8,
    },
    ReadBackups {
        objects: Objects,
        live: [bool; 2],
        needed: Objects,
        unread: u8,
        pass: u8,
        vanished: bool,
    },
    /// The weakened order only.
    IntentsLast {
        needed: Objects,
    },
    ObjectsLast {
        needed: Objects,
        live: [bool; 2],
    },
    Delete {
        garbage: Objects,
    },
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    store: Store,
    writers: [Writer; 2],
    retention: Retention,
    collectors: [Collector; 2],
}

#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub variant: Variant,
    pub writers: usize,
    pub collectors: usize,
    /// Whether a commit may be given up and arrive later.
    pub late_commits: bool,
    /// Whether a listing is taken page by page, in every order.
    pub pages: bool,
}

impl State {
    pub fn first(setting: Setting) -> State {
        let writer = |index| if index < setting.writers { Writer::Begin } else { Writer::Done };
        let collector =
            |index| if index < setting.collectors { Collector::ListObjects } else { Collector::Done };
        State {
            store: Store {
                objects: objects_of(OLD),
                intents: [None; 2],
                commits: [Some(Commit::Manifest(objects_of(OLD))), None, None],
                condemned: false,
                late_commit: [None; 2],
            },
            writers: [writer(0), writer(1)],
            retention: Retention::Condemn,
            collectors: [collector(0), collector(1)],
        }
    }

    /// A committed backup with a missing object. The old one may lose its objects
    /// once it is condemned and deleted, and not before.
    pub fn is_broken(&self) -> bool {
        self.store
            .commits
            .iter()
            .any(|commit| matches!(commit, Some(Commit::Manifest(needs)) if needs & !self.store.objects != 0))
    }

    pub fn successors(&self, setting: Setting, found: &mut Vec<State>) {
        for index in 0..setting.writers {
            self.writer_steps(setting, index, found);
        }
        self.retention_steps(setting.variant, found);
        for index in 0..setting.collectors {
            self.collector_steps(setting, index, found);
        }
        for index in 0..2 {
            if let Some(needs) = self.store.late_commit[index] {
                let mut next = self.clone();
                next.store.late_commit[index] = None;
                next.store.commits[index + 1].get_or_insert(Commit::Manifest(needs));
                found.push(next);
            }
        }
    }

    fn writer_steps(&self, setting: Setting, index: usize, found: &mut Vec<State>) {
        let variant = setting.variant;
        let own = objects_of(index + 1);
        let mut push = |writer: Writer, change: &dyn Fn(&mut Store)| {
            let mut next = self.clone();
            next.writers[index] = writer;
            change(&mut next.store);
            found.push(next);
        };
        let fresh = Writer::Upload { needs: own };
        match self.writers[index] {
            Writer::Begin => {
                let look = match variant {
                    Variant::MarkerLast => Writer::LookForManifest { marker_last: true },
                    Variant::NoSecondLook => Writer::LookForManifest { marker_last: false },
                    _ => Writer::LookForMarker,
                };
                if variant == Variant::NoIntent {
                    push(look, &|_| {});
                    return;
                }
                push(look, &|store| store.intents[index] = Some(true));
                push(fresh, &|store| store.intents[index] = Some(false));
            }
            Writer::LookForMarker => {
                let next =
                    if self.store.condemned { fresh } else { Writer::LookForManifest { marker_last: false } };
                push(next, &|_| {});
            }
            Writer::LookForManifest { marker_last } => {
                let next = match self.store.commits[OLD] {
                    Some(Commit::Manifest(shared)) if marker_last => Writer::LookForMarkerLast(shared),
                    Some(Commit::Manifest(shared)) => Writer::Upload { needs: own | shared },
                    _ => fresh,
                };
                push(next, &|_| {});
            }
            Writer::LookForMarkerLast(shared) => {
                let parent = Writer::Upload { needs: own | shared };
                push(if self.store.condemned { fresh } else { parent }, &|_| {});
            }
            Writer::Upload { needs } => push(Writer::Commit { needs }, &|store| store.objects |= own),
            Writer::Commit { needs } => {
                let blind = variant == Variant::BlindCommit;
                push(Writer::Close, &|store| {
                    if blind || store.commits[index + 1].is_none() {
                        store.commits[index + 1] = Some(Commit::Manifest(needs));
                    }
                });
                if setting.late_commits {
                    // The answer does not come. The rule: leave the intent alone.
                    let unknown = if variant == Variant::CloseUnknown { Writer::Close } else { Writer::Done };
                    push(unknown, &|store| store.late_commit[index] = Some(needs));
                }
            }
            Writer::Close => push(Writer::Done, &|store| store.intents[index] = None),
            Writer::Done => {}
        }
    }

    fn retention_steps(&self, variant: Variant, found: &mut Vec<State>) {
        let mut push = |retention: Retention, change: &dyn Fn(&mut Store)| {
            let mut next = self.clone();
            next.retention = retention;
            change(&mut next.store);
            found.push(next);
        };
        match self.retention {
            Retention::Condemn => {
                push(Retention::ListIntents { next: 0, named: false }, &|store| store.condemned = true);
            }
            // One session after the other: its intent, and whether it has ended.
            Retention::ListIntents { next, named } if next < 2 => {
                let open = self.store.intents[next] == Some(true) && self.store.commits[next + 1].is_none();
                push(Retention::ListIntents { next: next + 1, named: named || open }, &|_| {});
            }
            Retention::ListIntents { named: true, .. } if variant == Variant::TakeMarkerBack => {
                // Two retentions at work: this one gives up while another one, which
                // looked before the intent was there, goes on.
                push(Retention::DeleteManifest, &|store| store.condemned = false);
                push(Retention::Condemn, &|store| store.condemned = false);
            }
            Retention::ListIntents { named: true, .. } if variant != Variant::NoBackOff => {
                push(Retention::ListIntents { next: 0, named: false }, &|_| {});
            }
            Retention::ListIntents { .. } => push(Retention::DeleteManifest, &|_| {}),
            Retention::DeleteManifest => push(Retention::DeleteMarker, &|store| store.commits[OLD] = None),
            Retention::DeleteMarker => push(Retention::Done, &|store| store.condemned = false),
            Retention::Done => {}
        }
    }

    fn collector_steps(&self, setting: Setting, index: usize, found: &mut Vec<State>) {
        let variant = setting.variant;
        let mut push = |collector: Collector, change: &dyn Fn(&mut Store)| {
            let mut next = self.clone();
            next.collectors[index] = collector;
            change(&mut next.store);
            found.push(next);
        };
        let open = self.store.intents.map(|intent| intent.is_some());
        match self.collectors[index] {
            Collector::ListObjects if variant == Variant::BackupsFirst => {
                let needed = self.needed_by_all();
                push(Collector::IntentsLast { needed }, &|_| {});
            }
            Collector::IntentsLast { needed } => {
                push(Collector::ObjectsLast { needed, live: open }, &|_| {});
            }
            Collector::ObjectsLast { needed, live } => {
                push(Collector::Delete { garbage: garbage(self.store.objects, needed, live) }, &|_| {});
            }
            Collector::ListObjects => {
                push(Collector::ListIntents { objects: self.store.objects }, &|_| {});
            }
            Collector::ListIntents { objects } => {
                push(Collector::Judge { objects, live: open, next: 0 }, &|_| {});
            }
            Collector::Judge { objects, live, next } if next < 2 => {
                let go_on = |live| Collector::Judge { objects, live, next: next + 1 };
                push(go_on(live), &|_| {});
                if live[next] {
                    let mut fewer = live;
                    fewer[next] = false;
                    push(go_on(fewer), &|store| {
                        if variant != Variant::LeaseOnly {
                            store.commits[next + 1].get_or_insert(Commit::Tombstone);
                        }
                    });
                }
            }
            Collector::Judge { objects, live, .. } => push(first_listing(objects, live, 0, 0), &|_| {}),
            Collector::ListBackups { objects, live, needed, pass, .. } if !setting.pages => {
                let bit = |backup: usize| u8::from(self.store.commits[backup].is_some()) << backup;
                let unread = (0..BACKUPS).map(bit).sum();
                push(
                    Collector::ReadBackups { objects, live, needed, unread, pass, vanished: false },
                    &|_| {},
                );
            }
            Collector::ListBackups { objects, live, needed, looked, listed, pass } => {
                let all = setting.writers + 1;
                for backup in (0..all).filter(|backup| looked & (1 << backup) == 0) {
                    let is_there = self.store.commits[backup].is_some();
                    let listed = listed | u8::from(is_there) << backup;
                    let looked = looked | 1 << backup;
                    let next = if looked == (1 << all) - 1 {
                        let unread = listed;
                        Collector::ReadBackups { objects, live, needed, unread, pass, vanished: false }
                    } else {
                        Collector::ListBackups { objects, live, needed, looked, listed, pass }
                    };
                    push(next, &|_| {});
                }
            }
            Collector::ReadBackups { objects, mut live, mut needed, unread, pass, mut vanished }
                if unread != 0 =>
            {
                let backup = unread.trailing_zeros() as usize;
                match self.store.commits[backup] {
                    Some(Commit::Manifest(needs)) if variant == Variant::PacksOnly => {
                        needed |= needs & (!MAPS | objects_of(backup));
                    }
                    Some(Commit::Manifest(needs)) => needed |= needs,
                    Some(Commit::Tombstone) => {}
                    None => vanished = true,
                }
                // A session whose commit is there has ended, whatever it said.
                if backup > 0 && self.store.commits[backup].is_some() {
                    live[backup - 1] = false;
                }
                let unread = unread & (unread - 1);
                push(Collector::ReadBackups { objects, live, needed, unread, pass, vanished }, &|_| {});
            }
            Collector::ReadBackups { objects, live, needed, pass, vanished, .. } => {
                let again = vanished && variant != Variant::SkipVanished;
                let once = matches!(variant, Variant::OneListing | Variant::SkipVanished);
                let passes = if once { 1 } else { 2 };
                let next = if again {
                    first_listing(objects, live, needed, 0)
                } else if pass + 1 < passes {
                    first_listing(objects, live, needed, pass + 1)
                } else {
                    Collector::Delete { garbage: garbage(objects, needed, live) }
                };
                push(next, &|_| {});
            }
            Collector::Delete { garbage } if garbage != 0 => {
                let object = garbage & garbage.wrapping_neg();
                push(Collector::Delete { garbage: garbage & !object }, &|store| store.objects &= !object);
            }
            Collector::Delete { .. } => {
                // The intents of sessions that have ended go last.
                push(Collector::Done, &|store| {
                    for session in 0..2 {
                        if store.commits[session + 1].is_some() {
                            store.intents[session] = None;
                        }
                    }
                });
            }
            Collector::Done => {}
        }
    }

    fn needed_by_all(&self) -> Objects {
        self.store.commits.iter().fold(0, |needed, commit| match commit {
            Some(Commit::Manifest(needs)) => needed | needs,
            _ => needed,
        })
    }
}

fn first_listing(objects: Objects, live: [bool; 2], needed: Objects, pass: u8) -> Collector {
    Collector::ListBackups { objects, live, needed, looked: 0, listed: 0, pass }
}

fn garbage(objects: Objects, needed: Objects, live: [bool; 2]) -> Objects {
    let protected =
        (0..2).filter(|session| live[*session]).fold(0, |all, session| all | objects_of(session + 1));
    objects & !needed & !protected
}
