//! Every order in which the steps of writers, retention and collectors can meet.
//!
//! One step below is one call to the store (or one page of a listing). Each
//! process may stop for ever between any two steps, and any session may be judged
//! dead at any moment: so nothing rests on time. All states are explored, and in
//! each of them a backup that is committed must have all its objects.
//!
//! The rules are those of `backstay_repo::protocol`. Each weakened variant leaves
//! one of them out and must be caught; a rule that can be left out without being
//! caught here would be one that nobody needs.

use std::collections::{HashMap, VecDeque};

mod steps;

use steps::{Setting, State, Variant, WEAKENED};

/// A state that must not be, and the states on the way to it.
struct Exploration {
    states: usize,
    violation: Option<Vec<State>>,
}

fn explore(setting: Setting) -> Exploration {
    let first = State::first(setting);
    let mut numbers: HashMap<State, u32> = HashMap::new();
    let mut came_from: Vec<u32> = vec![0];
    numbers.insert(first.clone(), 0);
    let mut waiting = VecDeque::from([(first, 0)]);
    let mut successors = Vec::new();
    while let Some((state, number)) = waiting.pop_front() {
        if state.is_broken() {
            let by_number: HashMap<u32, &State> = numbers.iter().map(|(state, n)| (*n, state)).collect();
            let mut path = vec![number];
            while path[path.len() - 1] != 0 {
                path.push(came_from[path[path.len() - 1] as usize]);
            }
            let violation = path.iter().rev().map(|n| by_number[n].clone()).collect();
            return Exploration { states: numbers.len(), violation: Some(violation) };
        }
        state.successors(setting, &mut successors);
        for next in successors.drain(..) {
            if !numbers.contains_key(&next) {
                let n = numbers.len() as u32;
                numbers.insert(next.clone(), n);
                came_from.push(number);
                waiting.push_back((next, n));
            }
        }
    }
    Exploration { states: numbers.len(), violation: None }
}

fn settings(variant: Variant) -> [Setting; 3] {
    [
        Setting { variant, writers: 1, collectors: 1, late_commits: true, pages: true },
        Setting { variant, writers: 2, collectors: 1, late_commits: false, pages: false },
        Setting { variant, writers: 1, collectors: 2, late_commits: false, pages: false },
    ]
}

#[test]
fn the_protocol_loses_no_object_of_a_committed_backup_in_any_order() {
    for setting in settings(Variant::Full) {
        let explored = explore(setting);
        println!("{setting:?}: {} states", explored.states);
        if let Some(path) = explored.violation {
            let steps: Vec<String> = path.iter().map(|state| format!("{state:?}")).collect();
            panic!("{setting:?}: a backup lost an object\n{}", steps.join("\n"));
        }
        assert!(explored.states > 1000, "too few states to mean anything");
    }
}

#[test]
fn every_rule_that_is_left_out_loses_data_somewhere() {
    for variant in WEAKENED {
        let caught = settings(variant).into_iter().any(|setting| explore(setting).violation.is_some());
        assert!(caught, "{variant:?} was not caught: the model or the rule is wrong");
    }
}
