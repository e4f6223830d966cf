#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use insta::assert_snapshot;
use proptest::prelude::*;

use crate::*;

fn pipeline(text: &str) -> Pipeline {
    Pipeline::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> String {
    Pipeline::parse(text).unwrap_err().to_string()
}

fn names(plan: &Plan) -> Vec<String> {
    plan.jobs.iter().map(ToString::to_string).collect()
}

#[test]
fn without_a_section_nothing_runs() {
    assert!(pipeline("app = \"shop\"\n[http]\nnonsense = 1\n").is_empty());
    assert!(pipeline("[pipeline]\nparallel = 2\n").is_empty());
}

#[test]
fn a_section_is_read_with_its_defaults() {
    let pipeline = pipeline(
        "[pipeline.steps.lint]\nrun = \"ruff check .\"\nimage = \"ruff:1\"\n\
         [pipeline.steps.test]\nrun = [\"pytest\", \"-q\", \"$HOME\"]\nneeds = [\"lint\"]\nservices = [\"postgres:15\"]\n\
         secrets = [\"KEY\"]\ncache = [\"/root/.cache/\"]\ntimeout = \"90s\"\nretries = 2\n\
         when = { branch = \"main\", paths = [\"src/**\", \"*.py\"] }\nenv = { MODE = \"test\" }\n\
         [pipeline.verify.smoke]\nrun = \"curl -f $CORACLE_URL/\"\n",
    );
    let [lint, test] = pipeline.steps.as_slice() else { panic!("{pipeline:?}") };
    assert_eq!((lint.image.clone(), lint.timeout), (StepImage::Named("ruff:1".into()), coracle_model::Span::seconds(600)));
    assert_eq!((test.image.clone(), test.retries, test.cache.as_slice()), (StepImage::App, 2, &["/root/.cache".to_owned()][..]));
    let postgres = &test.services[0];
    assert_eq!(postgres.name, "postgres");
    assert_eq!(postgres.told[&"DATABASE_URL".parse().unwrap()], "postgres://postgres@postgres:5432/postgres");
    assert_eq!(postgres.health.as_ref().unwrap()[0], "pg_isready");
    assert_eq!(pipeline.verify[0].run.to_string(), "curl -f ${CORACLE_URL}/");
}

#[test]
fn services_with_variables_of_their_own_are_their_authors_affair() {
    let text = "[pipeline.steps.test]\nrun = \"x\"\n[pipeline.steps.test.services.db]\nimage = \"r:5000/a/postgres:15@sha256:0\"\n\
                env = { POSTGRES_PASSWORD = \"x\" }\n[pipeline.steps.test.services.q]\nimage = \"rabbit\"\nhealth = \"rabbit up\"\n";
    let pipeline = pipeline(text);
    let [db, q] = pipeline.steps[0].services.as_slice() else { panic!() };
    assert_eq!((db.env.len(), db.told.len(), db.health.as_ref().unwrap()[0].as_str()), (1, 0, "pg_isready"));
    assert_eq!(q.health.as_ref().unwrap().join(" "), "rabbit up");
}

#[test]
fn what_a_step_hands_over_is_below_its_roots_and_those_are_not_in_each_other() {
    let pipeline = pipeline(
        "[pipeline.steps.a]\nrun = \"x\"\nartifacts = [\"dist/**\", \"dist/a/*.js\", \"reports/*.xml\", \"coverage.xml\"]\n\
         [pipeline.steps.b]\nrun = \"x\"\nartifacts = [\"*.xml\", \"dist\"]\n",
    );
    let [a, b] = pipeline.steps.as_slice() else { panic!() };
    assert_eq!(a.artifact_roots(), ["coverage.xml", "dist", "reports"]);
    assert_eq!(b.artifact_roots(), ["."]);
    assert!(a.hands_over("dist/deep/x") && a.hands_over("reports/1.xml") && !a.hands_over("reports/1.txt"));
    assert!(b.hands_over("dist/deep/x") && b.hands_over("a.xml") && !b.hands_over("deep/a.txt"));
}

#[test]
fn some_steps_of_a_plan_run_with_what_they_need() {
    let pipeline = pipeline(
        "[pipeline.steps.lint]\nrun = \"x\"\n[pipeline.steps.build]\nrun = \"x\"\nmatrix = { A = [\"1\", \"2\"] }\n\
         [pipeline.steps.test]\nrun = \"x\"\nneeds = [\"build\"]\n",
    );
    let plan = || pipeline.plan(&Trigger::Tree);
    let test = plan().only(&["test".parse().unwrap()]).unwrap();
    assert_eq!(names(&test), ["build[A=1]", "build[A=2]", "test"]);
    assert_eq!(test.jobs[2].needs, [0, 1]);
    assert_eq!(names(&plan().only(&["lint".parse().unwrap()]).unwrap()), ["lint"]);
    assert_eq!(plan().only(&["tset".parse().unwrap()]).unwrap_err().as_str(), "tset");
}

#[test]
fn thousands_of_steps_are_not_even_looked_at() {
    let text: String = (0..20_000).map(|n| format!("[pipeline.steps.s{n}]\nrun = \"x\"\nneeds = [\"s0\"]\n")).collect();
    assert!(mistakes(&text).contains("has 20000 steps, and 64 are the most"));
    let cache = mistakes("[pipeline.steps.a]\nrun = \"x\"\ncache = [\"/workspace/\", \"/workspace/.cache\"]\n");
    assert!(cache.contains("/workspace is where the source tree is") && !cache.contains("lie in each other"), "{cache}");
}

#[test]
fn mistakes_are_told_with_their_places() {
    assert_snapshot!(mistakes(
        "[pipeline]\nstep = 1\napprove = true\n[pipeline.steps.lint]\nimage = 3\n[pipeline.steps.test]\nrun = \"pytest && x\"\n\
         needs = [\"lnt\"]\ntimeout = 60\nartifacts = [\"../dist\"]\nservices = [\"postgres:15\", \"postgres:16\"]\n\
         [pipeline.steps.Deploy]\n[pipeline.steps.more]\nrun = \"x\"\ncache = [\"dist\"]\nimage = \"python:$PYTON\"\n\
         matrix = { PYTHON = [\"3.12\"] }\nwhen = { branches = \"main\", paths = \"/src\" }\nsecrets = [\"A\"]\nenv = { A = \"1\" }\n\
         [pipeline.verify.up]\nrun = \"x\"\nneeds = []\n"
    ), @r##"
    coracle.toml:2:1: pipeline.step: unknown key
     2 | step = 1
       | ^^^^
       = did you mean `steps`?
    coracle.toml:4:17: pipeline.steps.lint: runs nothing
     4 | [pipeline.steps.lint]
       |                 ^^^^
       = write run = "pytest -q", say
    coracle.toml:5:9: pipeline.steps.lint.image: expected a string, found an integer
     5 | image = 3
       |         ^
       = put it in quotes: "3"
    coracle.toml:7:7: pipeline.steps.test.run: && at character 8 needs a shell, and commands run without one: put the line into a script, or write it as ["sh", "-c", "…"] in coracle.toml
     7 | run = "pytest && x"
       |       ^^^^^^^^^^^^^
    coracle.toml:8:9: pipeline.steps.test.needs: there is no step lnt
     8 | needs = ["lnt"]
       |         ^^^^^^^
       = did you mean lint?
    coracle.toml:9:11: pipeline.steps.test.timeout: expected a string with a unit, found an integer
     9 | timeout = 60
       |           ^^
       = as in "5m"
    coracle.toml:10:14: pipeline.steps.test.artifacts: "../dist" must not have empty segments, `.` or `..`
     10 | artifacts = ["../dist"]
        |              ^^^^^^^^^
    coracle.toml:11:12: pipeline.steps.test.services: two services would be called postgres
     11 | services = ["postgres:15", "postgres:16"]
        |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        = give them names: services = { one = { image = "…" }, other = { image = "…" } }
    coracle.toml:12:17: pipeline.steps.Deploy: "Deploy" is not a name for a step: use 1 to 24 lower-case letters, digits, hyphens and underscores, beginning with a letter
     12 | [pipeline.steps.Deploy]
        |                 ^^^^^^
    coracle.toml:15:9: pipeline.steps.more.cache: "dist" is not the absolute path of a folder
     15 | cache = ["dist"]
        |         ^^^^^^^^
        = give it as the step sees it, as in "/root/.cache/pip"
    coracle.toml:16:9: pipeline.steps.more.image: $PYTON is not in the step's `matrix`
     16 | image = "python:$PYTON"
        |         ^^^^^^^^^^^^^^^
        = did you mean PYTHON?
    coracle.toml:18:10: pipeline.steps.more.when.branches: unknown key
     18 | when = { branches = "main", paths = "/src" }
        |          ^^^^^^^^
        = did you mean `branch`?
    coracle.toml:18:37: pipeline.steps.more.when.paths: "/src" must not begin with a slash
     18 | when = { branches = "main", paths = "/src" }
        |                                     ^^^^^^
    coracle.toml:19:11: pipeline.steps.more.secrets: A is in `env` as well
     19 | secrets = ["A"]
        |           ^^^^^
        = a secret's value is set by `coracle secrets set`, never in the file
    coracle.toml:23:1: pipeline.verify.up.needs: unknown key
     23 | needs = []
        | ^^^^^
        = known keys here: run, image, env, secrets, timeout, retries
    "##);
}

#[test]
fn a_circle_is_shown_by_its_path() {
    assert_snapshot!(mistakes(
        "[pipeline.steps]\nfree = { run = \"x\", needs = [\"b\"] }\na = { run = \"x\", needs = [\"c\"] }\n\
         b = { run = \"x\", needs = [\"a\"] }\nc = { run = \"x\", needs = [\"b\"] }\n"
    ), @r#"
    coracle.toml:3:26: pipeline.steps.a.needs: no step of these could ever begin: a needs c needs b needs a
     3 | a = { run = "x", needs = ["c"] }
       |                          ^^^^^
       = take one of them out
    "#);
    assert!(mistakes("[pipeline.steps]\na = { run = \"x\", needs = [\"a\"] }\n").contains("a needs a"));
}

#[test]
fn a_matrix_is_every_combination_and_bounded() {
    let text = "[pipeline.steps.test]\nrun = \"x\"\nimage = \"py:${PY}-$OS\"\nmatrix = { PY = [\"3.12\", \"3.13\"], OS = [\"a\"] }\n\
                [pipeline.steps.after]\nrun = \"x\"\nneeds = [\"test\"]\n";
    let plan = pipeline(text).plan(&Trigger::Tree);
    assert_eq!(names(&plan), ["test[OS=a,PY=3.12]", "test[OS=a,PY=3.13]", "after"]);
    assert_eq!(plan.jobs[1].step.image, StepImage::Named("py:3.13-a".into()));
    assert_eq!((plan.jobs[1].number, plan.jobs[2].needs.as_slice()), (2, &[0, 1][..]));
    let many: Vec<String> = (0..9).map(|n| format!("\"{n}\"")).collect();
    let many = many.join(",");
    let text = format!("[pipeline.steps.x]\nrun = \"x\"\nmatrix = {{ A = [{many}], B = [{many}] }}\n");
    assert!(mistakes(&text).contains("has 81 combinations, and 32 are the most"));
}

#[test]
fn branches_and_tags_leave_steps_out_and_say_why() {
    let text = "[pipeline.steps]\nall = { run = \"x\" }\nmain = { run = \"x\", when = { branch = \"main\" } }\n\
                tagged = { run = \"x\", when = { tag = \"v*\" } }\nafter = { run = \"x\", needs = [\"tagged\"] }\n";
    let pipeline = pipeline(text);
    // Whoever sends a tree says nothing of branches: then nothing is left out.
    assert_eq!(names(&pipeline.plan(&Trigger::Tree)), ["all", "main", "tagged", "after"]);
    let plan = pipeline.plan(&Trigger::Branch("topic".into()));
    assert_eq!(names(&plan), ["all", "after"]);
    assert!(plan.jobs[1].needs.is_empty());
    assert_eq!(plan.left_out[0].1, "it is for branch main, and this is branch topic");
    assert_eq!(names(&pipeline.plan(&Trigger::Tag("v2".into()))), ["all", "tagged", "after"]);
}

mod keys {
    use super::*;
    use coracle_model::Secret;

    fn job(text: &str) -> Job {
        pipeline(&format!("[pipeline.steps.test]\n{text}\n")).plan(&Trigger::Tree).jobs.remove(0)
    }

    fn tree(files: &[(&str, u8)]) -> TreeFiles {
        files.iter().map(|(path, content)| ((*path).to_owned(), [*content; 32])).collect()
    }

    fn key(job: &Job, files: &[(&str, u8)], secret: &str) -> Key {
        let secrets = [("S".parse().unwrap(), Secret::new(secret))];
        let (env, told) = (BTreeMap::new(), BTreeMap::new());
        let tree = tree(files);
        job.key(&Inputs { image: "i", services: &[], tree: &tree, env: &env, secrets: &secrets, told: &told, handed: &[] })
    }

    #[test]
    fn what_a_step_depends_on_changes_its_key() {
        let plain = job("run = \"x\"");
        let base = key(&plain, &[("a", 1), ("b", 1)], "s");
        assert_eq!(base, key(&plain, &[("a", 1), ("b", 1)], "s"));
        let mut all = BTreeSet::from([base.clone()]);
        for other in [
            key(&plain, &[("a", 2), ("b", 1)], "s"),
            key(&plain, &[("a", 1)], "s"),
            key(&plain, &[("a", 1), ("c", 1)], "s"),
            key(&plain, &[("a", 1), ("b", 1)], "t"),
            key(&job("run = \"y\""), &[("a", 1), ("b", 1)], "s"),
            key(&job("run = \"x\"\nenv = { A = \"1\" }"), &[("a", 1), ("b", 1)], "s"),
            key(&job("run = \"x\"\nservices = [\"redis:7\"]"), &[("a", 1), ("b", 1)], "s"),
            key(&job("run = \"x\"\ncache = [\"/c\"]"), &[("a", 1), ("b", 1)], "s"),
            key(&job("run = \"x\"\nmatrix = { A = [\"1\"] }"), &[("a", 1), ("b", 1)], "s"),
        ] {
            assert!(all.insert(other.clone()), "{other}");
        }
        // How often and how long it is tried says nothing about what it would find.
        assert_eq!(base, key(&job("run = \"x\"\nretries = 3\ntimeout = \"1m\""), &[("a", 1), ("b", 1)], "s"));
    }

    #[test]
    fn only_the_files_a_step_names_count() {
        let job = job("run = \"x\"\nwhen = { paths = [\"src/**\", \"*.lock\"] }");
        let base = key(&job, &[("src/a/b", 1), ("x.lock", 1), ("README", 1)], "s");
        assert_eq!(base, key(&job, &[("src/a/b", 1), ("x.lock", 1), ("README", 2), ("new", 1)], "s"));
        assert_ne!(base, key(&job, &[("src/a/b", 2), ("x.lock", 1), ("README", 1)], "s"));
        assert_ne!(base, key(&job, &[("src/a/b", 1), ("README", 1)], "s"));
    }
}

/// Steps in the order of a file, each with those it needs.
fn graph(most: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    (1..most)
        .prop_flat_map(|count| prop::collection::vec(prop::collection::btree_set(0..count, 0..4), count))
        .prop_map(|all| all.into_iter().map(|needs| needs.into_iter().collect()).collect())
}

fn text_of(graph: &[Vec<usize>]) -> String {
    let line = |(at, needs): (usize, &Vec<usize>)| {
        let needs: Vec<String> = needs.iter().map(|need| format!("\"s{need}\"")).collect();
        format!("s{at} = {{ run = \"x\", needs = [{}] }}\n", needs.join(", "))
    };
    format!("[pipeline.steps]\n{}", graph.iter().enumerate().map(line).collect::<String>())
}

/// Whether a step waits for itself, found by following every path.
fn has_circle(graph: &[Vec<usize>]) -> bool {
    (0..graph.len()).any(|start| {
        let (mut seen, mut next) = (BTreeSet::new(), graph[start].clone());
        while let Some(at) = next.pop() {
            if at == start {
                return true;
            }
            if seen.insert(at) {
                next.extend(&graph[at]);
            }
        }
        false
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn circles_and_only_circles_are_refused(graph in graph(9)) {
        let parsed = Pipeline::parse(&text_of(&graph));
        prop_assert_eq!(parsed.is_err(), has_circle(&graph));
        if let Ok(pipeline) = parsed {
            let plan = pipeline.plan(&Trigger::Tree);
            prop_assert_eq!(plan.jobs.len(), graph.len());
            for (at, job) in plan.jobs.iter().enumerate() {
                prop_assert!(job.needs.iter().all(|need| *need < at));
                prop_assert_eq!(job.needs.len(), job.step.needs.len());
            }
        }
    }

    /// Whatever fails, whichever job ends first, and however many run at once.
    #[test]
    fn every_job_runs_once_after_what_it_needs_and_not_after_a_failure(
        graph in graph(12),
        failing in prop::collection::btree_set(0_usize..12, 0..4),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 64),
        parallel in 1_usize..5,
    ) {
        // Only backwards, so that there is no circle.
        let needs: Vec<Vec<usize>> =
            graph.iter().enumerate().map(|(at, needs)| needs.iter().copied().filter(|need| *need < at).collect()).collect();
        let mut schedule = Schedule::new(needs.clone(), parallel);
        let (mut running, mut passed, mut failed, mut given_up) =
            (Vec::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut ends = ends.iter();
        while !schedule.is_over() {
            while let Some(job) = schedule.start_next() {
                prop_assert!(needs[job].iter().all(|need| passed.contains(need)));
                running.push(job);
                prop_assert!(running.len() <= parallel);
            }
            prop_assert!(!running.is_empty());
            let job = running.swap_remove(ends.next().map_or(0, |end| end.index(running.len())));
            let well = !failing.contains(&job);
            let is_first = if well { passed.insert(job) } else { failed.insert(job) };
            prop_assert!(is_first, "{} ran twice", job);
            for lost in schedule.ended(job, well) {
                prop_assert!(given_up.insert(lost));
            }
        }
        prop_assert_eq!(passed.len() + failed.len() + given_up.len(), needs.len());
        for job in given_up.iter() {
            prop_assert!(needs[*job].iter().any(|need| failed.contains(need) || given_up.contains(need)));
        }
    }
}
