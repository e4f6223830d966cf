use std::collections::HashMap;

use coracle_proxy_table::{Admission, HealthCheck, Service, Sticky};

use super::*;
use crate::target::{Count, InFlight, Registry};

const WORKERS: usize = 3;

fn plan(weights: &[u32]) -> Service {
    let target = |(number, weight): (usize, &u32)| coracle_proxy_table::Target {
        weight: *weight,
        ..coracle_proxy_table::Target::new(format!("t{number}"), "127.0.0.1:1".parse().unwrap())
    };
    Service::new(Admission::Open, weights.iter().enumerate().map(target).collect())
}

/// A table with this service, in place of the one before.
fn publish(registry: &Registry, plan: &Service, before: Option<&Balancer>, turn: u64) -> Balancer {
    let targets: Vec<_> = plan.targets.iter().map(|target| registry.obtain(target, plan.protocol)).collect();
    targets.iter().for_each(|target| target.standing.set_slow_start(plan.slow_start_ms));
    Balancer::new(plan, targets, before, WORKERS, turn)
}

fn balancer(plan: &Service) -> Balancer {
    publish(&Registry::new(WORKERS), plan, None, 0)
}

fn ask(balancer: &Balancer, worker: usize, tried: &[Arc<Target>]) -> Option<String> {
    let asker = Asker { worker, tried, fields: &Fields::new(), clock: Instant::now };
    balancer.pick(asker).map(|target| target.id.0.clone())
}

fn shares(balancer: &Balancer, requests: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for request in 0..requests {
        *shares.entry(ask(balancer, request % WORKERS, &[]).unwrap_or_default()).or_default() += 1;
    }
    shares
}

#[test]
fn equal_targets_take_turns() {
    for weight in [1, 100] {
        let shares = shares(&balancer(&plan(&[weight; 4])), 400);
        assert!(shares.len() == 4 && shares.values().all(|count| *count == 100), "{shares:?}");
    }
}

#[test]
fn shares_go_by_weight_over_all_workers() {
    let shares = shares(&balancer(&plan(&[9, 1, 0])), 3000);
    assert!(shares["t1"].abs_diff(300) <= 2 * WORKERS, "{shares:?}");
    assert!(!shares.contains_key("t2"));
}

#[test]
fn tables_that_change_nothing_leave_the_shares_as_they_are() {
    let (registry, plan) = (Registry::new(WORKERS), plan(&[9, 1]));
    let mut balancer = publish(&registry, &plan, None, 0);
    let mut canary = 0;
    for table in 1..1000 {
        canary += usize::from(ask(&balancer, 0, &[]).unwrap() == "t1");
        balancer = publish(&registry, &plan, Some(&balancer), table);
    }
    assert!(canary.abs_diff(100) <= 2, "{canary}");
}

#[test]
fn the_turns_of_one_that_is_out_go_to_all_others() {
    for weights in [[1; 4], [2; 4]] {
        let mut plan = plan(&weights);
        plan.health = Some(HealthCheck { path: "/".into(), interval_ms: 1, timeout_ms: 1, status: None, host: None });
        let balancer = balancer(&plan);
        balancer.targets()[2].standing.went_down();
        let some = shares(&balancer, 1200);
        assert!(some.len() == 3 && some.values().all(|count| count.abs_diff(400) <= 100), "{some:?}");
        for target in balancer.targets() {
            target.standing.went_down();
        }
        assert_eq!(ask(&balancer, 0, &[]), None);
        balancer.targets()[1].standing.came_up(Instant::now());
        assert_eq!(shares(&balancer, 10), HashMap::from([("t1".to_owned(), 10)]));
    }
}

#[test]
fn nobody_answers_where_all_weigh_nothing() {
    for balance in [Balance::RoundRobin, Balance::LeastLoaded] {
        let mut plan = plan(&[0, 0]);
        plan.balance = balance;
        assert_eq!(ask(&balancer(&plan), 0, &[]), None);
        plan.targets.clear();
        assert_eq!(ask(&balancer(&plan), 0, &[]), None);
    }
}

#[test]
fn who_was_tried_is_not_asked_again() {
    for balance in [Balance::RoundRobin, Balance::LeastLoaded] {
        for weights in [[1, 1, 1], [3, 1, 1]] {
            let mut plan = plan(&weights);
            plan.balance = balance;
            let balancer = balancer(&plan);
            let mut tried = Vec::new();
            for _ in 0..3 {
                let id = ask(&balancer, 0, &tried).unwrap();
                let target = balancer.targets().iter().find(|target| target.id.0 == id).unwrap();
                assert!(!is_among(target, &tried));
                tried.push(Arc::clone(target));
            }
            assert_eq!(ask(&balancer, 0, &tried), None);
        }
    }
}

#[test]
fn the_more_loaded_one_is_avoided() {
    let mut plan = plan(&[1, 1]);
    plan.balance = Balance::LeastLoaded;
    let balancer = balancer(&plan);
    let _busy = InFlight::begin(&balancer.targets()[0], 2, Count::Plain);
    assert_eq!(shares(&balancer, 100), HashMap::from([("t1".to_owned(), 100)]));
}

#[test]
fn a_cookie_leads_back_as_long_as_its_target_is_well() {
    let mut plan = plan(&[1, 0]);
    plan.sticky = Some(Sticky { cookie: "lb".into(), secure: false, http_only: false, same_site: None, max_age_s: None });
    plan.health = Some(HealthCheck { path: "/".into(), interval_ms: 1, timeout_ms: 1, status: None, host: None });
    let balancer = balancer(&plan);
    let second = &balancer.targets()[1];
    let cookie = balancer.cookie(second, &Fields::new()).unwrap();
    let mut fields = Fields::new();
    fields.append("Cookie", cookie.split(';').next().unwrap()).unwrap();
    let ask = |tried: &[Arc<Target>]| {
        let asker = Asker { worker: 0, tried, fields: &fields, clock: Instant::now };
        Arc::clone(balancer.pick(asker).unwrap())
    };
    // Weight 0 keeps away only those who have never been there.
    assert!(Arc::ptr_eq(&ask(&[]), second));
    assert_eq!(balancer.cookie(second, &fields), None);
    assert_eq!(ask(&[Arc::clone(second)]).id.0, "t0");
    second.standing.went_down();
    let other = ask(&[]);
    assert_eq!(other.id.0, "t0");
    assert!(balancer.cookie(&other, &fields).is_some());
}

#[test]
fn never_more_than_half_are_ejected_and_one_is_better_than_none() {
    let registry = Registry::new(WORKERS);
    let mut plan = plan(&[1; 5]);
    plan.ejection = Some(Ejection { failures: 2, for_ms: 60_000 });
    let balancer = publish(&registry, &plan, None, 0);
    for target in balancer.targets() {
        (0..5).for_each(|_| balancer.failed(target, Instant::now()));
    }
    let shares = shares(&balancer, 300);
    assert_eq!(shares.len(), 3, "{shares:?}");
    assert!(!shares.contains_key("t0") && !shares.contains_key("t1"));
    // The next table has only one that is ejected.
    plan.targets.truncate(1);
    let balancer = publish(&registry, &plan, Some(&balancer), 1);
    assert_eq!(ask(&balancer, 0, &[]).unwrap(), "t0");
    // It has proved itself.
    balancer.succeeded(&balancer.targets()[0], Instant::now());
    assert_eq!(balancer.targets()[0].standing.against(EJECTED), 0);
}

#[test]
fn a_new_target_gets_little_at_first() {
    let registry = Registry::new(WORKERS);
    let mut plan = plan(&[1, 1]);
    plan.slow_start_ms = 3_600_000;
    let balancer = publish(&registry, &plan, None, 0);
    // Both are new: nobody is better off.
    let both = shares(&balancer, 300);
    assert!(both["t0"].abs_diff(150) <= 2 * WORKERS, "{both:?}");
    let asker = Asker { worker: 0, tried: &[], fields: &Fields::new(), clock: || Instant::now() + HOUR };
    for _ in 0..10 {
        balancer.pick(asker).unwrap();
    }
    // One of them has stood for long, the other came back just now.
    let later = Instant::now() + HOUR;
    balancer.targets()[1].standing.went_down();
    balancer.targets()[1].standing.came_up(later);
    let mut counts = [0; 2];
    for _ in 0..1000 {
        counts[usize::from(balancer.pick(asker).unwrap().id.0 == "t1")] += 1;
    }
    assert!(counts[1] <= 20, "{counts:?}");
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);
