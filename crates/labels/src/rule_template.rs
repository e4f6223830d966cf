//! The rule of routers that have none: a template in the language of Go's `text/template`, with the common functions of sprig,
//! about `.Name`, `.ContainerName` and `.Labels`.
//!
//! Texts, pipelines, parentheses, variables, `if` and `with` are understood; `range` and named templates are refused by name,
//! as are functions that nobody here knows, and those that read the server's environment.

mod functions;
mod syntax;
mod value;

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::container::Container;
use functions::call;
use syntax::{Command, Node, Operand, Pipeline};
use value::Value;

/// The most characters that a rule may come to.
const LONGEST: usize = 64 << 10;

/// A template that makes a rule for a container.
#[derive(Debug, Clone)]
pub struct RuleTemplate {
    nodes: Vec<Node>,
}

/// Why a template is none, or makes no rule for a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TemplateError(pub(crate) String);

impl TemplateError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl Default for RuleTemplate {
    /// ``Host(`{{ normalize .Name }}`)``, as Traefik has it.
    fn default() -> Self {
        let name = Operand::Field(None, vec!["Name".to_owned()]);
        let normalized = Command { function: Some("normalize".to_owned()), operands: vec![name] };
        let rule = Pipeline { assigns: None, commands: vec![normalized] };
        Self { nodes: vec![Node::Text("Host(`".to_owned()), Node::Show(rule), Node::Text("`)".to_owned())] }
    }
}

impl FromStr for RuleTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        syntax::parse(text).map(|nodes| Self { nodes })
    }
}

impl RuleTemplate {
    /// The rule for a container.
    ///
    /// # Errors
    /// [`TemplateError`] if it asks for something that is not there, or a function gets what it cannot use.
    pub fn render(&self, container: &Container) -> Result<String, TemplateError> {
        let labels = container.labels.iter().map(|(name, value)| (name.clone(), Value::Text(value.clone())));
        let fields = [
            ("Name", Value::Text(container.service_name())),
            ("ContainerName", Value::Text(container.name.clone())),
            ("Labels", Value::Map(labels.collect())),
        ];
        let root = Value::Fields(fields.map(|(name, value)| (name.to_owned(), value)).into());
        let mut writer = Writer { root: root.clone(), dot: root, variables: BTreeMap::new(), text: String::new() };
        writer.write(&self.nodes)?;
        Ok(writer.text)
    }
}

struct Writer {
    /// What `$` is.
    root: Value,
    /// What `.` is.
    dot: Value,
    variables: BTreeMap<String, Value>,
    text: String,
}

impl Writer {
    fn write(&mut self, nodes: &[Node]) -> Result<(), TemplateError> {
        for node in nodes {
            match node {
                Node::Text(text) => self.text.push_str(text),
                Node::Show(pipeline) => {
                    let value = self.run(pipeline)?;
                    if pipeline.assigns.is_none() {
                        self.text.push_str(&value.to_string());
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let branch = if self.run(condition)?.is_true() { then } else { otherwise };
                    self.write(branch)?;
                }
                Node::With { subject, then, otherwise } => {
                    let subject = self.run(subject)?;
                    if subject.is_true() {
                        let outer = std::mem::replace(&mut self.dot, subject);
                        self.write(then)?;
                        self.dot = outer;
                    } else {
                        self.write(otherwise)?;
                    }
                }
            }
            if self.text.len() > LONGEST {
                return Err(TemplateError::new("the rule becomes too long"));
            }
        }
        Ok(())
    }

    fn run(&mut self, pipeline: &Pipeline) -> Result<Value, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            let mut values = command.operands.iter().map(|operand| self.value(operand)).collect::<Result<Vec<_>, _>>()?;
            let piped = last.take();
            last = Some(match &command.function {
                Some(function) => {
                    values.extend(piped);
                    call(function, values)?
                }
                None if piped.is_some() || values.len() != 1 => {
                    return Err(TemplateError::new("something is passed to what is no function"));
                }
                None => values.remove(0),
            });
        }
        let value = last.unwrap_or_default();
        if let Some(name) = &pipeline.assigns {
            self.variables.insert(name.clone(), value.clone());
        }
        Ok(value)
    }

    fn value(&mut self, operand: &Operand) -> Result<Value, TemplateError> {
        match operand {
            Operand::Text(text) => Ok(Value::Text(text.clone())),
            Operand::Number(number) => Ok(Value::Number(*number)),
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Nothing => Ok(Value::Nothing),
            Operand::Field(None, path) => follow(self.dot.clone(), path),
            Operand::Field(Some(variable), path) if variable.is_empty() => follow(self.root.clone(), path),
            Operand::Field(Some(variable), path) => match self.variables.get(variable) {
                Some(value) => follow(value.clone(), path),
                None => Err(TemplateError::new(format!("there is no variable ${variable}"))),
            },
            Operand::Inner(pipeline, path) => follow(self.run(pipeline)?, path),
        }
    }
}

fn follow(start: Value, path: &[String]) -> Result<Value, TemplateError> {
    path.iter().try_fold(start, |value, name| match value {
        Value::Fields(mut fields) => fields
            .remove(name)
            .ok_or_else(|| TemplateError::new(format!("there is no .{name}: there are .Name, .ContainerName and .Labels"))),
        Value::Map(mut entries) => Ok(entries.remove(name).unwrap_or_default()),
        _ => Err(TemplateError::new(format!("nothing has a field .{name} here"))),
    })
}
