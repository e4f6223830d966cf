//! Variables in a whole tree: every text is interpolated, then turned into the type that its key has.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::budget::Account;
use crate::cast;
use crate::error::{ErrorKind, Fault};
use crate::interpolation::{self, InterpolationError};
use crate::node::{Data, Node};
use crate::schema::Rule;
use crate::trail::Trail;
use crate::warnings::Warnings;

/// What the variables of one text may come to, in bytes.
const MAX_COPIED: usize = 16 * 1024 * 1024;

/// The variables that a file sees.
pub(crate) type Environment = BTreeMap<String, String>;

/// Interpolates every text below `node`.
pub(crate) fn substitute(
    node: &mut Node,
    rule: &Rule,
    environment: &Environment,
    account: &mut Account,
    trail: &Trail<'_>,
) -> Result<(), Fault> {
    match &mut node.data {
        Data::Map(map) => {
            let values = map.iter_mut();
            let done = values.map(|(key, value)| substitute(value, rule.child(key), environment, account, &trail.key(key)));
            Fault::gather(done)?;
        }
        Data::List(items) => {
            let values = items.iter_mut().enumerate();
            let done = values.map(|(index, value)| substitute(value, rule.item(), environment, account, &trail.index(index)));
            Fault::gather(done)?;
        }
        Data::Text(text) => {
            if text.contains('$') {
                *text = expand(text, environment, &mut account.warnings).map_err(|fault| fault.on(trail).at(node.at))?;
                account.budget.spend(text.len() / 32, node.at)?;
            }
            if rule.cast {
                let at = node.at;
                cast::cast(node, rule, &mut account.warnings)
                    .map_err(|message| Fault::new(ErrorKind::Interpolation, message).on(trail).at(at))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Interpolates one text.
pub(crate) fn expand(text: &str, environment: &Environment, warnings: &mut Warnings) -> Result<String, Fault> {
    // A text that names a long variable often would grow to the product of both; past the bound nothing more is copied.
    let copied = Cell::new(0);
    let lookup = |name: &str| {
        let value = environment.get(name)?;
        copied.set(copied.get() + value.len());
        Some(if copied.get() > MAX_COPIED { String::new() } else { value.clone() })
    };
    let expanded = interpolation::interpolate(text, &lookup).map_err(|error| {
        let hint = match &error {
            InterpolationError::Required { variable, .. } => Some(format!("set {variable} in the environment or in .env")),
            _ => None,
        };
        let fault = Fault::new(ErrorKind::Interpolation, error.to_string());
        match hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    })?;
    if copied.get() > MAX_COPIED {
        let message = format!("its variables are longer than {} MiB together", MAX_COPIED / 1024 / 1024);
        return Err(Fault::new(ErrorKind::Limit, message));
    }
    for name in &expanded.missing {
        warnings.add(format!("The \"{name}\" variable is not set. Defaulting to a blank string."));
    }
    Ok(expanded.text)
}
