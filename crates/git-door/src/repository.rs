//! One app's repository: bare, made by us, and configured by us alone.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::process::ChildStdout;

use crate::door::DoorError;
use crate::git::{Git, Running, told};
use crate::object_id::ObjectId;

/// Branches that are deployed where nothing else is said, the first that is pushed.
const USUAL: [&str; 2] = ["main", "master"];

/// The file that says what is about to become live.
const INTENT: &str = "coracle-intent.json";

/// The file that says that the app is on its way out, and the repository with it.
const PARTING: &str = "coracle-parting";

/// How long a repository may take to be tidied up.
const TIDYING: Duration = Duration::from_secs(15 * 60);

/// The most submodules that are named.
const NAMED: usize = 5;

/// A branch that is about to be moved because its commit is being deployed. Written down before the deployment begins, so
/// that a server that is killed in between knows at its next start which ref may have to say what is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The full name of the ref.
    pub reference: String,
    /// What it names until then; zeros: it is not there.
    pub old: ObjectId,
    /// The commit that is being deployed.
    pub new: ObjectId,
}

/// A bare repository.
#[derive(Debug, Clone)]
pub struct Repository {
    path: PathBuf,
}

impl Repository {
    /// The repository at this path, if there is one.
    pub(crate) fn open(path: PathBuf) -> Option<Self> {
        path.join("HEAD").is_file().then_some(Self { path })
    }

    /// Makes an empty repository, whole or not at all. Whoever calls this sees to it that nobody else does meanwhile.
    pub(crate) async fn create(path: PathBuf) -> Result<Self, DoorError> {
        let Some(parent) = path.parent() else { return Err(DoorError::file(&path, ErrorKind::InvalidInput.into())) };
        let making = tempfile::Builder::new()
            .prefix(crate::door::NEW)
            .tempdir_in(parent)
            .map_err(|error| DoorError::file(parent, error))?;
        let mut git = Git::new(making.path(), &["init", "--quiet", "--bare", "--template=", "--initial-branch=main"]);
        git.argument(making.path());
        git.ask().await?;
        std::fs::rename(making.keep(), &path).map_err(|error| DoorError::file(&path, error))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn git(&self, words: &[&str]) -> Git {
        Git::in_repository(&self.path, words)
    }

    /// The branch that is deployed, by what is said (`HEAD`).
    pub async fn branch(&self) -> Result<String, DoorError> {
        let name = self.git(&["symbolic-ref", "--quiet", "HEAD"]).ask().await?;
        let name = String::from_utf8_lossy(&name);
        let name = name.trim_end_matches('\n');
        Ok(name.strip_prefix("refs/heads/").unwrap_or(name).to_owned())
    }

    /// Branches that may be deployed, in order of preference: the one that is, or, before the first push, any usual one.
    pub async fn candidates(&self) -> Result<Vec<String>, DoorError> {
        let branch = self.branch().await?;
        let is_there = self.resolve(&format!("refs/heads/{branch}")).await?.is_some();
        let usual = USUAL.iter().filter(|usual| !is_there && USUAL.contains(&branch.as_str()) && **usual != branch);
        let usual: Vec<String> = usual.map(|usual| (*usual).to_owned()).collect();
        Ok(std::iter::once(branch).chain(usual).collect())
    }

    /// Whether this can be the name of a branch, by git's own rules (git-check-ref-format(1)).
    pub async fn is_branch_name(&self, name: &str) -> Result<bool, DoorError> {
        // What begins with a hyphen could not be pushed without ado.
        if name.is_empty() || name.len() > 255 || name.starts_with('-') || name.contains(char::is_control) {
            return Ok(false);
        }
        match self.git(&["check-ref-format", &format!("refs/heads/{name}")]).ask().await {
            Ok(_) => Ok(true),
            Err(DoorError::Git(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// From now on this branch is the one that is deployed.
    pub async fn set_branch(&self, reference: &str) -> Result<(), DoorError> {
        self.git(&["symbolic-ref", "HEAD", reference]).ask().await.map(drop)
    }

    /// What a ref names; `None` if it is not there.
    pub async fn resolve(&self, reference: &str) -> Result<Option<ObjectId>, DoorError> {
        let list = self.git(&["for-each-ref", "--count=1", "--format=%(objectname) %(refname)", reference]).ask().await?;
        let list = String::from_utf8_lossy(&list);
        let named = list.lines().find_map(|line| line.split_once(' ').filter(|(_, name)| *name == reference));
        Ok(named.and_then(|(id, _)| id.parse().ok()))
    }

    /// Whether an object is a commit (and there at all).
    pub async fn is_commit(&self, id: &ObjectId) -> Result<bool, DoorError> {
        let kind = self.git(&["cat-file", "-t", id.as_str()]).ask().await?;
        Ok(kind == b"commit\n")
    }

    /// Paths of a commit at which other repositories belong; a few of them. Refused if the commit has more files than `most`: a few
    /// trees that contain each other several times are more files than anybody could count.
    pub async fn submodules(&self, commit: &ObjectId, most: u64) -> Result<Vec<String>, DoorError> {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let listing = self.git(&["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]);
        let mut running = listing.start()?;
        drop(running.child.stdin.take());
        let complaint = tokio::spawn(running.complaint());
        let Some(stdout) = running.child.stdout.take() else { return Ok(Vec::new()) };
        let (mut found, mut count) = (Vec::new(), 0);
        let listing = async {
            let mut entries = BufReader::new(stdout);
            let mut entry = Vec::new();
            while entries.read_until(0, &mut entry).await? > 0 {
                count += 1;
                if count > most {
                    return Ok(None);
                }
                // "160000 commit ID\tPATH": the mode of a submodule.
                if entry.starts_with(b"160000 ") && found.len() < NAMED {
                    let path = entry.split(|byte| *byte == b'\t').nth(1).unwrap_or_default();
                    found.push(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned());
                }
                entry.clear();
            }
            running.child.wait().await.map(Some)
        };
        let ended = tokio::time::timeout(crate::git::QUESTION, listing).await;
        match ended.map_err(|_| DoorError::Git("listing a commit's files does not end".to_owned()))?.map_err(DoorError::Start)? {
            None => Err(DoorError::TooManyFiles(most)),
            Some(status) if status.success() => Ok(found),
            Some(_) => Err(DoorError::Git(told(&complaint.await.unwrap_or_default()))),
        }
    }

    /// The files of a commit as a tar archive, as it is being written. Attributes of the repository may leave files out or
    /// fill in `$Format$` (gitattributes(5)); nothing they name is run.
    pub fn archive(&self, commit: &ObjectId) -> Result<Archive, DoorError> {
        let mut running = self.git(&["archive", "--format=tar", commit.as_str()]).start()?;
        drop(running.child.stdin.take());
        let complaint = tokio::spawn(running.complaint());
        Ok(Archive { stdout: running.child.stdout.take(), running, complaint })
    }

    /// Moves a ref, if it still names what it is said to.
    pub async fn update(&self, reference: &str, new: &ObjectId, old: &ObjectId) -> Result<(), DoorError> {
        self.git(&["update-ref", reference, new.as_str(), old.as_str()]).ask().await.map(drop)
    }

    /// Has a ref name this, whatever it named before.
    pub async fn set(&self, reference: &str, new: &ObjectId) -> Result<(), DoorError> {
        self.git(&["update-ref", reference, new.as_str()]).ask().await.map(drop)
    }

    /// Takes a ref away. Succeeds if it is not there.
    pub async fn remove_ref(&self, reference: &str) -> Result<(), DoorError> {
        self.git(&["update-ref", "-d", reference]).ask().await.map(drop)
    }

    /// Takes all refs away whose names begin so, up to a slash.
    pub async fn remove_refs(&self, prefix: &str) -> Result<(), DoorError> {
        let list = self.git(&["for-each-ref", "--format=%(refname)", prefix]).ask().await?;
        for reference in String::from_utf8_lossy(&list).lines().filter(|name| name.starts_with(prefix)) {
            self.remove_ref(reference).await?;
        }
        Ok(())
    }

    /// Writes down what is about to become live.
    pub fn intend(&self, intent: &Intent) -> Result<(), DoorError> {
        let path = self.path.join(INTENT);
        let writing = || {
            let mut file = NamedTempFile::new_in(&self.path)?;
            file.write_all(&serde_json::to_vec(intent)?)?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|error| error.error)?;
            File::open(&self.path)?.sync_all()
        };
        writing().map_err(|error| DoorError::file(&path, error))
    }

    /// Writes down that the app is being destroyed, so that a server which is killed before the repository is gone knows at its next
    /// start that no later app of this name is to have it.
    pub fn part(&self) -> Result<(), DoorError> {
        let path = self.path.join(PARTING);
        let writing = || {
            File::create(&path)?.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        writing().map_err(|error| DoorError::file(&path, error))
    }

    /// Whether the app was being destroyed.
    pub fn is_parting(&self) -> bool {
        self.path.join(PARTING).exists()
    }

    /// The app stays after all.
    pub fn stay(&self) -> Result<(), DoorError> {
        let path = self.path.join(PARTING);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(DoorError::file(&path, error)),
            _ => Ok(()),
        }
    }

    /// What was about to become live when it was last written down.
    pub fn intent(&self) -> Option<Intent> {
        serde_json::from_slice(&std::fs::read(self.path.join(INTENT)).ok()?).ok()
    }

    /// What was intended is settled, one way or the other.
    pub fn forget_intent(&self) {
        if let Err(error) = std::fs::remove_file(self.path.join(INTENT))
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(repository = %self.path.display(), %error, "a settled push is looked at again at the next start");
        }
    }

    /// Makes the ref of an intent say that its commit is live.
    pub async fn fulfil(&self, intent: &Intent) -> Result<(), DoorError> {
        if self.resolve(&intent.reference).await?.as_ref() != Some(&intent.new) {
            self.update(&intent.reference, &intent.new, &intent.old).await?;
        }
        if intent.reference != format!("refs/heads/{}", self.branch().await?) {
            self.set_branch(&intent.reference).await?;
        }
        Ok(())
    }

    /// Packs what has come in pieces, and removes what refused pushes left long ago.
    pub(crate) async fn tidy(&self) {
        let mut git = self.git(&["gc", "--auto", "--quiet"]);
        git.set("gc.auto", "6700").set("gc.autoDetach", "false").set("gc.pruneExpire", "1.week.ago");
        if let Err(error) = git.ask_within(TIDYING).await {
            tracing::warn!(repository = %self.path.display(), %error, "a repository is not tidied up");
        }
    }
}

/// An archive that is being written.
pub struct Archive {
    stdout: Option<ChildStdout>,
    running: Running,
    complaint: tokio::task::JoinHandle<Vec<u8>>,
}

impl Archive {
    /// What is read of it; once.
    pub fn reader(&mut self) -> Option<ChildStdout> {
        self.stdout.take()
    }

    /// Whether all of it was written. A tar archive itself does not tell.
    pub async fn end(mut self) -> Result<(), DoorError> {
        drop(self.stdout.take());
        let status = tokio::time::timeout(crate::git::QUESTION, self.running.child.wait()).await;
        match status.map_err(|_| DoorError::Git("an archive does not end".to_owned()))?.map_err(DoorError::Start)? {
            status if status.success() => Ok(()),
            status => {
                let complaint = told(&self.complaint.await.unwrap_or_default());
                Err(DoorError::Git(format!("reading the commit's files ended with {status}: {complaint}")))
            }
        }
    }
}
