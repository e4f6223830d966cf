//! What must hold for any body, used by the test beside this file and by the target in `fuzz/`.

use coracle_pyrunner::understood;
use coracle_sandbox::{Limits, Stdin};

/// A body is an execution within the limits, or the request's fault. Answers how many endpoints took it.
pub fn body(bytes: &[u8]) -> usize {
    let highest = Limits::default();
    let mut taken = 0;
    for (endpoint, outcome) in understood(bytes, &highest) {
        match outcome {
            Err(problem) => {
                assert!((400..500).contains(&problem.status), "{endpoint}: {problem:?}");
                assert!(!problem.detail.is_empty() && problem.detail.len() < 2000, "{endpoint}: {problem:?}");
            }
            Ok(execution) => {
                taken += 1;
                assert_eq!(highest.lowered(&execution.limits).wall, execution.limits.wall.unwrap_or(highest.wall));
                assert!(execution.limits.memory_bytes.is_none_or(|bytes| bytes <= highest.memory_bytes));
                assert!(execution.limits.pids.is_none_or(|pids| (1..=highest.pids).contains(&pids)));
                assert!(!execution.args.iter().any(|argument| argument.contains('\0')));
                assert!(
                    execution
                        .env
                        .iter()
                        .all(|(name, value)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'))
                );
                for file in &execution.files {
                    let names: Vec<&str> = file.path.split('/').collect();
                    let proper = |name: &&str| !matches!(*name, "" | "." | "..") && name.len() <= 255 && !name.contains('\0');
                    assert!(names.iter().all(proper) && file.path != "main.py", "{endpoint}: {:?}", file.path);
                }
                assert!(matches!(execution.stdin, Stdin::Bytes(_)));
            }
        }
    }
    taken
}
