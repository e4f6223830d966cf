//! A project that `docker compose up` has started becomes an app: examples/course, with a worker beside it. Compose itself is
//! not needed: what it leaves behind are containers, a network and a volume with its labels.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use coracle_model::EngineKind;
use coracle_tests::engine::{can_tell, can_tell_as_root, docker};
use coracle_tests::{App, Env, Load, RunningLoad, browser, eventually, proxy};
use http::Method;

/// How long a database may take to start for the first time.
const FIRST_START: Duration = Duration::from_secs(60);

/// A worker: it does not take requests, and two of it would be one too many. Python as PID 1 leaves SIGTERM alone.
const BEAT: &str = "  beat:
    build: .
    restart: always
    stop_signal: SIGKILL
    command: [\"python\", \"-u\", \"-c\", \"import time\\nwhile True:\\n    print('beat', flush=True)\\n    time.sleep(1)\"]
";

/// For the course's page: it ends a second after it was asked for the first time.
const ENDS: &str =
    "\n\n@app.before_request\ndef ends():\n    import threading\n    threading.Timer(1, lambda: os.kill(1, 15)).start()\n";

/// A compose project that runs.
struct Project {
    name: String,
    app: App,
    port: u16,
    redis: u16,
}

impl Project {
    /// Starts it as `docker compose up -d` does.
    async fn up(env: &Env) -> Self {
        let app = env.app("course");
        let (port, redis) = (proxy::free_address().port(), proxy::free_address().port());
        app.tree
            .change("docker-compose.yml", "8000:8000", &format!("{port}:8000"))
            .change("docker-compose.yml", "6379:6379", &format!("127.0.0.1:{redis}:6379"))
            .change("docker-compose.yml", "  db:\n", &format!("{BEAT}  db:\n"))
            .change("docker-compose.yml", "secret@db", "${PASSWORD}@db")
            .change("docker-compose.yml", "POSTGRES_PASSWORD=secret", "POSTGRES_PASSWORD=${PASSWORD}")
            .write(".env", "PASSWORD=from-a-file\n");
        let name = format!("course_{port}");
        let project = Self { name, app, port, redis };
        project.make().await;
        project.answers("an old student", FIRST_START).await;
        project
    }

    fn label(&self, name: &str, value: &str) -> String {
        format!("com.docker.compose.{name}={value}")
    }

    /// `<project>_<name>`, as Compose calls networks and volumes.
    fn owned(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// `<project>-<service>-1`, as Compose calls containers.
    fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    async fn make(&self) {
        let (project, tree) = (self.label("project", &self.name), self.app.tree.path().to_str().unwrap().to_owned());
        let (network, volume) = (self.label("network", "default"), self.label("volume", "pgdata"));
        docker(&["network", "create", "--label", &project, "--label", &network, &self.owned("default")]).await.unwrap();
        docker(&["volume", "create", "--label", &project, "--label", &volume, &self.owned("pgdata")]).await.unwrap();
        docker(&["build", "--quiet", "--tag", &self.owned("web"), &tree]).await.unwrap();
        let data = format!("{}:/var/lib/postgresql/data", self.owned("pgdata"));
        let secret = "POSTGRES_PASSWORD=from-a-file";
        self.run("db", &["-v", &data, "-e", "POSTGRES_USER=admin", "-e", secret, "postgres:15"]).await;
        self.run("redis", &["-p", &format!("127.0.0.1:{}:6379", self.redis), "redis:7"]).await;
        let web = self.owned("web");
        let database = "DATABASE_URL=postgresql://admin:from-a-file@db/admin";
        let published = format!("{}:8000", self.port);
        let variables = ["-e", "ENV=production", "-e", database, "-e", "REDIS_URL=redis://redis:6379/0"];
        let words: Vec<&str> = ["-p", &published].into_iter().chain(variables).chain([web.as_str()]).collect();
        self.run("web", &words).await;
        self.run(
            "beat",
            &[
                "--stop-signal",
                "SIGKILL",
                &web,
                "python",
                "-u",
                "-c",
                "import time\nwhile True:\n    print('beat', flush=True)\n    time.sleep(1)",
            ],
        )
        .await;
    }

    async fn run(&self, service: &str, words: &[&str]) {
        let tree = self.app.tree.path().canonicalize().unwrap();
        let files = tree.join("docker-compose.yml");
        let labels = [
            self.label("project", &self.name),
            self.label("service", service),
            self.label("container-number", "1"),
            self.label("oneoff", "False"),
            self.label("project.working_dir", tree.to_str().unwrap()),
            self.label("project.config_files", files.to_str().unwrap()),
        ];
        let (name, network) = (self.container(service), self.owned("default"));
        let mut all =
            vec!["run", "-d", "--name", &name, "--network", &network, "--network-alias", service, "--restart", "always"];
        all.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
        all.extend(words);
        docker(&all).await.unwrap();
    }

    /// Where people know it.
    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> Result<browser::Answer, String> {
        let answer = browser::ask(self.address(), "127.0.0.1", method, path, body.to_owned()).await;
        answer.map_err(|error| format!("{error:#}"))
    }

    /// Enrols a student, as soon as that can be.
    async fn answers(&self, student: &str, patience: Duration) {
        eventually("students can enrol", patience, async || {
            match self.ask(Method::POST, "/students", &format!("name={}", student.replace(' ', "+"))).await {
                Ok(answer) if answer.status.as_u16() == 201 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    async fn students(&self) -> String {
        self.ask(Method::GET, "/students", "").await.unwrap().body
    }

    /// How its containers stand: running, and when they are started again.
    async fn state(&self) -> Vec<String> {
        let mut states = Vec::new();
        for service in ["beat", "db", "redis", "web"] {
            let format = "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}";
            let told = docker(&["inspect", "--format", format, &self.container(service)]).await;
            states.push(format!("{service} {}", told.unwrap_or_else(|_| "gone".to_owned())));
        }
        states
    }

    async fn runs_as_before(&self) {
        assert_eq!(self.state().await, ["beat true always", "db true always", "redis true always", "web true always"]);
    }

    /// Requests a second on its published port, each on a connection of its own, that read the database. They may wait for a
    /// database to stop and to start, on a machine that does other things besides.
    fn load(&self, per_second: u32) -> Load {
        let load = Load::on(self.address(), "127.0.0.1", per_second).only_get().of_page("/students");
        Load { fresh_every: 1, patience: Duration::from_secs(150), ..load }
    }

    fn app_name(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// What `docker compose down -v` does.
impl Drop for Project {
    fn drop(&mut self) {
        let remove = |words: &[&str]| {
            let told = std::process::Command::new("docker").args(words).stdin(Stdio::null()).output();
            if told.as_ref().map_or(true, |told| !told.status.success()) {
                eprintln!("docker {words:?}: {told:?}");
            }
        };
        let containers = ["beat", "db", "redis", "web"].map(|service| self.container(service));
        let [beat, db, redis, web] = containers.each_ref().map(String::as_str);
        remove(&["rm", "--force", "--volumes", beat, db, redis, web]);
        remove(&["network", "rm", &self.owned("default")]);
        remove(&["volume", "rm", &self.owned("pgdata")]);
        remove(&["rmi", &self.owned("web")]);
    }
}

/// The rules that lead a port elsewhere, if there are any.
async fn rules(port: u16) -> String {
    let output = tokio::process::Command::new("iptables").args(["-w", "10", "-t", "nat", "-S"]).output().await.unwrap();
    let rules = String::from_utf8_lossy(&output.stdout).into_owned();
    rules.lines().filter(|rule| rule.contains("REDIRECT") && rule.contains(&format!("--dport {port} "))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_project_becomes_an_app_and_nobody_notices() {
    if !can_tell(EngineKind::Docker, "import::running") || !can_tell_as_root("import::running") {
        return;
    }
    let env = Env::start(EngineKind::Docker).await;
    let project = Project::up(&env).await;
    let name = project.app_name();
    let listed = env.coracle(&["import", "--list"]).await;
    listed.succeeds().says(&project.name).says("beat, db, redis, web").says("4 of 4");
    let plan = env.coracle(&["import", &project.name, "--plan"]).await;
    plan.succeeds().says(&format!("the volume {} is used as it is", project.owned("pgdata")));
    plan.says("db, redis: stops in the project and starts in the app")
        .says(&format!("port {} goes on leading to web", project.port));
    project.runs_as_before().await;

    let load = project.load(5).start();
    env.coracle(&["import", &project.name]).await.succeeds().says(&name);
    // The port is the proxy's own by now.
    assert_eq!(rules(project.port).await, "");
    lost_nothing("imported", load).await;
    assert_eq!(project.state().await, ["beat false no", "db false no", "redis false no", "web false no"]);
    assert!(project.students().await.contains("an old student"));
    project.answers("a new student", Duration::from_secs(5)).await;
    browser::get(env.address(), &format!("{name}.localhost"), "/students").await.unwrap().says("a new student");
    env.coracle(&["logs", "-a", &name, "--process", "beat"]).await.succeeds().says("beat");

    deploys_change_what_changed(&env, &project, &name).await;
    // The server and its proxy come back to the port.
    env.restart_server().await;
    assert!(project.students().await.contains("a new student"));
    env.leaves_nothing().await;
    let refused = project.ask(Method::GET, "/", "").await;
    assert!(refused.is_err(), "the proxy has let go of the port: {refused:?}");
    // The volume is whose it was.
    docker(&["volume", "inspect", &project.owned("pgdata")]).await.unwrap();
}

async fn deploys_change_what_changed(env: &Env, project: &Project, name: &str) {
    let database = || async {
        let all = env.belongings().containers;
        let name = all.iter().find(|name| name.contains(".db.")).cloned().unwrap();
        docker(&["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", &name]).await.unwrap()
    };
    let before = database().await;
    let deploy = ["deploy", project.app.tree.path().to_str().unwrap(), "-a", name];
    let releases = || async { env.client().releases(&name.parse().unwrap()).await.unwrap().len() };
    env.coracle(&deploy).await.succeeds();
    assert_eq!(releases().await, 1, "the same tree is nothing new");
    let load = Load { fresh_every: 5, ..project.load(5) }.start();
    project.app.tree.version("v2");
    env.coracle(&deploy).await.succeeds();
    load.stop().await.lost_nothing();
    assert!(project.students().await.contains("v2"));
    assert_eq!((releases().await, database().await), (2, before), "the database was not touched");
    env.coracle(&["rollback", "-a", name]).await.succeeds();
    assert!(project.students().await.contains("v1") && project.students().await.contains("a new student"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_that_comes_to_nothing_leaves_the_project_as_it_was() {
    if !can_tell(EngineKind::Docker, "import::failing") || !can_tell_as_root("import::failing") {
        return;
    }
    let env = Env::start(EngineKind::Docker).await;
    let project = Project::up(&env).await;
    let name = project.app_name();
    let dir = env.path("state/imports");

    // It ends by its own mistake, after the database has changed over.
    let (sound, image) = (project.app.tree.read("course.py"), project.app.tree.read("Dockerfile"));
    project.app.tree.write("course.py", "raise RuntimeError('the lecture is cancelled')\n");
    project.app.tree.append("Dockerfile", "CMD [\"python\", \"course.py\"]\n");
    let load = project.load(5).start();
    let failed = env.coracle(&["import", &project.name]).await;
    failed.fails().says("the lecture is cancelled");
    lost_nothing("given back", load).await;
    is_as_before(&env, &project, &dir).await;

    // It answers for a moment, and ends after the switch, which is taken back.
    project.app.tree.write("Dockerfile", image).write("course.py", format!("{sound}{ENDS}"));
    let failed = env.coracle(&["import", &project.name]).await;
    failed.fails().says("the switch, which was taken back");
    is_as_before(&env, &project, &dir).await;

    // The server is killed in the middle of another, and gives it back when it starts.
    project
        .app
        .tree
        .write("Dockerfile", format!("{}STOPSIGNAL SIGKILL\nCMD [\"sleep\", \"600\"]\n", project.app.tree.read("Dockerfile")));
    let mut interrupted = env.command(&["import", &project.name]).kill_on_drop(true).spawn().unwrap();
    eventually("the database has changed over", Duration::from_secs(60), async || {
        let changed = env.belongings().containers.iter().any(|name| name.contains(".web."));
        if changed { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    env.kill_server().await;
    interrupted.wait().await.unwrap();
    env.start_server().await;
    eventually("the project serves again", Duration::from_secs(60), async || {
        let (state, left) = (project.state().await, std::fs::read_dir(&dir).unwrap().count());
        if state.iter().all(|state| state.contains("true always")) && left == 0 {
            Ok(())
        } else {
            Err(format!("{state:?} {left}"))
        }
    })
    .await;
    is_as_before(&env, &project, &dir).await;

    // What has come to nothing twice may be done again.
    project.app.tree.write("course.py", sound).change("Dockerfile", "STOPSIGNAL SIGKILL\nCMD [\"sleep\", \"600\"]\n", "");
    env.coracle(&["import", &project.name, "--remove-old"]).await.succeeds();
    assert_eq!(project.state().await, ["beat gone", "db gone", "redis gone", "web gone"]);
    assert!(project.students().await.contains("an old student"));
    let again = env.coracle(&["import", "-f", "docker-compose.yml", &project.name]).await;
    again.fails().says("no containers of a compose project");
    let taken = env.coracle(&["destroy", "-y", "-a", &name]).await;
    taken.succeeds();
    env.leaves_nothing().await;
}

/// Every request was answered, if later than usual; how much later is told.
async fn lost_nothing(what: &str, load: RunningLoad) {
    let report = load.stop().await;
    eprintln!("{what}: {report}");
    report.lost_nothing();
}

async fn is_as_before(env: &Env, project: &Project, dir: &std::path::Path) {
    project.runs_as_before().await;
    project.answers("somebody", Duration::from_secs(20)).await;
    assert!(project.students().await.contains("an old student"));
    assert_eq!((rules(project.port).await.as_str(), std::fs::read_dir(dir).unwrap().count()), ("", 0));
    let left = env.belongings().containers;
    assert!(left.is_empty(), "{left:?}");
}
