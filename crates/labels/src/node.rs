//! Labels as a tree: `traefik.http.routers.shop.rule` is a node below four others.

use std::collections::BTreeMap;

/// Why labels are no tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label {label:?}: {reason}")]
pub(crate) struct BadLabel {
    label: String,
    reason: &'static str,
}

/// One name of a label, with what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Node {
    /// As the first label (in the order of their bytes) wrote it; `[0]` for an element of a list.
    pub(crate) name: String,
    /// Empty if no label ends here.
    pub(crate) value: String,
    pub(crate) children: Vec<Self>,
}

impl Node {
    /// The tree of those labels that begin with one of the prefixes, whatever their case. Names that differ in case only are
    /// one name.
    pub(crate) fn of(labels: &BTreeMap<String, String>, prefixes: &[&str]) -> Result<Self, BadLabel> {
        let mut root = Self::default();
        let wanted = |label: &str| {
            let begins = |prefix: &&str| label.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
            prefixes.iter().any(begins)
        };
        for (label, value) in labels.iter().filter(|(label, _)| wanted(label)) {
            let path = path(label).map_err(|reason| BadLabel { label: label.clone(), reason })?;
            root.place(path.get(1..).unwrap_or_default()).value.clone_from(value);
        }
        Ok(root)
    }

    fn place(&mut self, path: &[&str]) -> &mut Self {
        let Some((name, below)) = path.split_first() else { return self };
        let at = match self.children.iter().position(|child| child.name.eq_ignore_ascii_case(name)) {
            Some(at) => at,
            None => {
                self.children.push(Self { name: (*name).to_owned(), ..Self::default() });
                self.children.len() - 1
            }
        };
        self.children[at].place(below)
    }
}

/// `a.b[0].c` as `a`, `b`, `[0]`, `c`.
fn path(label: &str) -> Result<Vec<&str>, &'static str> {
    let mut path = Vec::new();
    for name in label.split('.') {
        match name.find('[') {
            _ if name.is_empty() => return Err("has an empty name between two dots, or at its end"),
            Some(0) => return Err("an index stands behind a name, as in `domains[0]`"),
            Some(at) if name.ends_with(']') => path.extend([&name[..at], &name[at..]]),
            _ => path.push(name),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(labels: &[(&str, &str)]) -> Result<Node, BadLabel> {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        Node::of(&labels.collect(), &["traefik.http"])
    }

    #[test]
    fn names_that_differ_in_case_only_are_one_and_others_are_not_looked_at() {
        let root =
            tree(&[("traefik.http.a.b", "1"), ("Traefik.HTTP.A.c", "2"), ("traefik.enable", "x"), ("other.", "y")]).unwrap();
        let http = &root.children[0];
        assert_eq!((root.children.len(), http.children.len()), (1, 1));
        let below: Vec<_> = http.children[0].children.iter().map(|child| (&*child.name, &*child.value)).collect();
        assert_eq!(below, [("c", "2"), ("b", "1")]);
    }

    #[test]
    fn indices_are_nodes_of_their_own() {
        let root = tree(&[("traefik.http.d[0].main", "a"), ("traefik.http.d[1].main", "b")]).unwrap();
        let names: Vec<_> = root.children[0].children[0].children.iter().map(|child| &*child.name).collect();
        assert_eq!(names, ["[0]", "[1]"]);
    }

    #[test]
    fn labels_with_holes_are_refused_by_name() {
        for label in ["traefik.http.", "traefik.http..a", "traefik.http.[0].a"] {
            let error = tree(&[(label, "")]).unwrap_err();
            assert!(error.to_string().contains(label), "{error}");
        }
    }
}
