//! CEL as Flux's `healthCheckExprs` has it: the variables are the top-level fields of the object.
//!
//! Expressions come from people who may write to one namespace only, so none of them may cost more
//! than its share: their length, their depth and the turns of their loops are bounded.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
    DYN_TYPE, LIST_TYPE,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, ParseErrors};
use serde_json::Value;

/// The longest expression, in bytes: several times what any rule needs.
const MAX_LENGTH: usize = 4096;
/// How deep an expression may be nested. Evaluation recurses, at less than 4 KiB a level.
const MAX_DEPTH: usize = 96;
/// The stack of the parser, which ends at 96 levels by itself. Debug builds take a quarter of it.
const PARSER_STACK: usize = 32 * 1024 * 1024;
/// What an evaluation may spend: a turn of a loop costs one, and what is put together costs its
/// size in units of 16 bytes. At less than a microsecond each that is a fraction of a second and a
/// megabyte or two; a list of a hundred against itself fits.
const BUDGET: u32 = 20_000;
/// The size of what an expression may put together in one step, in bytes: what is made of texts
/// can be as large as their product.
const MAX_PART: usize = 8 * 1024;

/// The function that counts turns of loops. No expression can name it.
const TURN: &str = "@turn";
/// The function that measures what is put together.
const MEASURED: &str = "@measured";
/// The function through which a regular expression goes, which is compiled each time.
const REGEX: &str = "@regex";
/// What that costs: as much as a hundred turns of a loop, and far more for a large one.
const REGEX_COST: u32 = 100;

thread_local! {
    /// What the evaluation that runs on this thread has left. Evaluation begins and ends on one
    /// thread, and functions of the shared environment know nothing else of who calls them.
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// Takes from what is left; an error when there is not enough.
fn spend(cost: u32) -> Result<(), ExecutionError> {
    let left = LEFT.get().checked_sub(cost);
    LEFT.set(left.unwrap_or(0));
    left.map(|_| ()).ok_or_else(|| ExecutionError::function_error(TURN, "over the limit"))
}

/// The size of a value in bytes, as far as it is under the limit.
fn size(value: &dyn Val, limit: usize) -> usize {
    let mut all = 8;
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        all += text.inner().len();
    } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        all += bytes.inner().len();
    } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        for item in list.inner() {
            if all > limit {
                break;
            }
            all += size(&**item, limit - all);
        }
    } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        for (key, item) in map.inner() {
            if all > limit {
                break;
            }
            all += size(key.inner(), limit - all) + size(&**item, limit);
        }
    }
    all
}

/// What is wrong with an expression, or with what it was asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// It is no CEL.
    #[error("`{text}` does not compile: {problem}")]
    Syntax {
        /// The expression.
        text: String,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// It is too long or too deep.
    #[error("`{text}` is too large: {problem}")]
    TooLarge {
        /// Its beginning.
        text: String,
        /// The limit.
        problem: String,
    },
    /// It names what the object does not have, which it may have later.
    #[error("`{text}` asks for {name}, which is not there; `has()` tells whether a field is")]
    NotThere {
        /// The expression.
        text: String,
        /// The field.
        name: String,
    },
    /// It cannot be evaluated.
    #[error("`{text}` cannot be evaluated: {problem}")]
    Failed {
        /// The expression.
        text: String,
        /// Why.
        problem: String,
    },
    /// It takes too long.
    #[error("`{text}` takes too long: {problem}")]
    TooLong {
        /// The expression.
        text: String,
        /// The limit.
        problem: String,
    },
    /// It gives no truth value.
    #[error("`{text}` gives {got} and not true or false")]
    NotBool {
        /// The expression.
        text: String,
        /// The type of its result.
        got: String,
    },
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Arc<str>,
    tree: Arc<IdedExpr>,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// What expressions may use: the standard library, optional values, and the extensions for strings,
/// sets and encoders, as in Flux; lists and math beyond.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    let added = [
        env.add_extension(cel::extensions::strings),
        env.add_extension(cel::extensions::encoders),
        env.add_extension(cel::extensions::lists),
        env.add_extension(cel::extensions::math),
        env.add_overload(TURN, "turn", Vec::new(), |_| {
            spend(1)?;
            Ok(truth(true))
        }),
        env.add_overload(MEASURED, "measured", vec![DYN_TYPE], |args| {
            let value = args.into_iter().next().ok_or(ExecutionError::MissingArgumentOrTarget)?;
            let size = size(&*value, MAX_PART);
            let cost = if size > MAX_PART {
                u32::MAX
            } else {
                u32::try_from(size / 16).unwrap_or(u32::MAX)
            };
            spend(cost)?;
            Ok(value)
        }),
        env.add_overload(REGEX, "regex", vec![DYN_TYPE], |args| {
            spend(REGEX_COST)?;
            args.into_iter().next().ok_or(ExecutionError::MissingArgumentOrTarget)
        }),
        env.add_overload(
            "sets.contains",
            "list_sets_contains_list",
            vec![LIST_TYPE, LIST_TYPE],
            |args| {
                let [all, some] = pair(&args)?;
                Ok(truth(some.iter().all(|one| all.iter().any(|other| other.equals(one.as_ref())))))
            },
        ),
        env.add_overload(
            "sets.equivalent",
            "list_sets_equivalent_list",
            vec![LIST_TYPE, LIST_TYPE],
            |args| {
                let [left, right] = pair(&args)?;
                let within = |some: &[Box<dyn Val + '_>], all: &[Box<dyn Val + '_>]| {
                    some.iter().all(|one| all.iter().any(|other| other.equals(one.as_ref())))
                };
                Ok(truth(within(left, right) && within(right, left)))
            },
        ),
        env.add_overload(
            "sets.intersects",
            "list_sets_intersects_list",
            vec![LIST_TYPE, LIST_TYPE],
            |args| {
                let [left, right] = pair(&args)?;
                Ok(truth(
                    left.iter().any(|one| right.iter().any(|other| other.equals(one.as_ref()))),
                ))
            },
        ),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "{added:?}");
    Arc::new(env)
});

fn pair<'a, 'v>(
    args: &'a [CowVal<'_, 'v>],
) -> Result<[&'a [Box<dyn Val + 'v>]; 2], ExecutionError> {
    let list = |at: usize| {
        let list = args.get(at).and_then(|arg| arg.downcast_ref::<CelList<'v>>());
        list.map(CelList::inner).ok_or(ExecutionError::MissingArgumentOrTarget)
    };
    Ok([list(0)?, list(1)?])
}

fn truth<'b, 'v>(is: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(is))
}

impl Expression {
    /// Compiles an expression.
    pub fn compile(text: &str) -> Result<Self, CelError> {
        let too_large = |problem: String| CelError::TooLarge {
            text: text.chars().take(40).collect::<String>() + "…",
            problem,
        };
        if text.len() > MAX_LENGTH {
            return Err(too_large(format!("it has more than {MAX_LENGTH} bytes")));
        }
        let syntax = |problem| CelError::Syntax { text: text.to_owned(), problem };
        let mut tree = parse(text).map_err(syntax)?;
        if depth(&tree) > MAX_DEPTH {
            return Err(too_large(format!("it is nested more than {MAX_DEPTH} deep")));
        }
        bound(&mut tree);
        Ok(Self { text: text.into(), tree: Arc::new(tree) })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds for these variables.
    pub fn holds(&self, variables: &Variables<'_>) -> Result<bool, CelError> {
        self.evaluate(variables, |value| value.downcast_ref::<CelBool>().map(|is| *is.inner()))?
            .map_err(|got| CelError::NotBool { text: self.text.to_string(), got })
    }

    /// The text that it gives; nothing when it gives something else.
    pub fn says(&self, variables: &Variables<'_>) -> Result<Option<String>, CelError> {
        let said = self.evaluate(variables, |value| {
            value.downcast_ref::<CelString<'_>>().map(|text| text.inner().to_owned())
        })?;
        Ok(said.ok())
    }

    fn evaluate<T>(
        &self,
        variables: &Variables<'_>,
        take: impl Fn(&dyn Val) -> Option<T>,
    ) -> Result<Result<T, String>, CelError> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(variables);
        LEFT.set(BUDGET);
        let value =
            cel::Value::resolve_val(&self.tree, &context).map_err(|error| self.explain(&error))?;
        Ok(take(&*value).ok_or_else(|| value.get_type().name().to_owned()))
    }

    /// Says what went wrong without quoting values.
    fn explain(&self, error: &ExecutionError) -> CelError {
        let text = self.text.to_string();
        let problem = match error {
            ExecutionError::UndeclaredReference(name) => {
                return CelError::NotThere { text, name: format!("`{name}`") };
            }
            // A key may be a value, too, but not one that the expression spells out.
            ExecutionError::NoSuchKey(name) => {
                let name = if self.text.contains(&**name) { &**name } else { "a key" };
                return CelError::NotThere { text, name: format!("`{name}`") };
            }
            ExecutionError::IndexOutOfBounds(_) => {
                return CelError::NotThere {
                    text,
                    name: "a place beyond the end of a list".into(),
                };
            }
            ExecutionError::FunctionError { function, .. } if function == TURN => {
                let problem =
                    format!("its loops turn, or what it puts together grows, beyond {BUDGET}");
                return CelError::TooLong { text, problem };
            }
            ExecutionError::FunctionError { function, .. } => format!("{function} fails"),
            ExecutionError::NoSuchOverload(overload) => overload.to_string(),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "a division by zero".into()
            }
            ExecutionError::Overflow(..) => "a number grows too large".into(),
            _ => "its parts do not go together".into(),
        };
        CelError::Failed { text, problem }
    }
}

/// Parses on a stack of its own: the parser recurses through a dozen large frames for each level
/// of its grammar.
fn parse(text: &str) -> Result<IdedExpr, String> {
    let parser = || ENV.parser().parse(text).map_err(|errors| problem_of(&errors));
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(PARSER_STACK);
        let parsed = builder.spawn_scoped(scope, parser).map(std::thread::ScopedJoinHandle::join);
        match parsed {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(_)) => Err("the parser gives up".into()),
            Err(error) => Err(format!("no thread for the parser: {error}")),
        }
    })
}

/// The first thing that the parser finds wrong, in one line.
fn problem_of(errors: &ParseErrors) -> String {
    let first = errors.errors.first();
    first.map_or_else(
        || "it is empty".into(),
        |error| format!("{} (line {}, column {})", error.msg, error.pos.0, error.pos.1),
    )
}

/// Calls `visit` with what stands directly below an expression.
fn below<'a>(expr: &'a Expr, mut visit: impl FnMut(&'a IdedExpr)) {
    match expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(call) => call.target.iter().map(|t| &**t).chain(&call.args).for_each(visit),
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]
                .into_iter()
                .for_each(visit);
        }
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Select(select) => visit(&select.operand),
        Expr::Map(map) => map.entries.iter().for_each(|entry| entry_parts(&entry.expr, &mut visit)),
        Expr::Struct(made) => {
            made.entries.iter().for_each(|entry| entry_parts(&entry.expr, &mut visit));
        }
    }
}

fn entry_parts<'a>(entry: &'a EntryExpr, visit: &mut impl FnMut(&'a IdedExpr)) {
    match entry {
        EntryExpr::StructField(field) => visit(&field.value),
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key);
            visit(&entry.value);
        }
    }
}

/// How deep an expression is nested, found without recursion.
fn depth(tree: &IdedExpr) -> usize {
    let (mut deepest, mut open) = (0, vec![(tree, 1)]);
    while let Some((expr, at)) = open.pop() {
        deepest = deepest.max(at);
        below(&expr.expr, |part| open.push((part, at + 1)));
    }
    deepest
}

/// Has every loop count its turns, and whatever is put together be measured: texts and lists can
/// grow with each step, and no loop is needed for that.
fn bound(tree: &mut IdedExpr) {
    match &mut tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Call(part) => {
            part.target.iter_mut().for_each(|target| bound(target));
            part.args.iter_mut().for_each(bound);
            if GROWING.contains(&&*part.func_name) {
                part.target.iter_mut().for_each(|target| measure(target));
                part.args.iter_mut().for_each(measure);
            }
            if part.func_name == "matches"
                && let Some(regex) = part.args.last_mut()
            {
                let inner = std::mem::take(regex);
                *regex = call(inner.id, REGEX, vec![inner]);
            }
        }
        Expr::Comprehension(c) => {
            for part in [&mut c.iter_range, &mut c.accu_init, &mut c.result] {
                bound(part);
            }
            bound_step(&mut c.loop_step, &c.accu_var);
            let turn = call(c.loop_cond.id, TURN, Vec::new());
            let condition = std::mem::take(&mut c.loop_cond);
            c.loop_cond = call(condition.id, operators::LOGICAL_AND, vec![turn, condition]);
        }
        Expr::List(list) => {
            list.elements.iter_mut().for_each(bound);
            list.elements.iter_mut().for_each(measure);
        }
        Expr::Select(select) => bound(&mut select.operand),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| bound_entry(&mut entry.expr)),
        Expr::Struct(made) => {
            made.entries.iter_mut().for_each(|entry| bound_entry(&mut entry.expr));
        }
    }
}

/// Functions whose results can be larger than what they are given.
const GROWING: [&str; 5] = [operators::ADD, "replace", "join", "format", "flatten"];

fn call(id: u64, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }) }
}

/// Has a part be measured, unless it stands there as it is.
fn measure(part: &mut IdedExpr) {
    if !matches!(part.expr, Expr::Literal(_)) {
        let inner = std::mem::take(part);
        *part = call(inner.id, MEASURED, vec![inner]);
    }
}

/// The step of a loop. What it adds to is not measured at each turn: what it adds is.
fn bound_step(step: &mut IdedExpr, so_far: &str) {
    let is_so_far = |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if name == so_far);
    match &mut step.expr {
        Expr::Call(part)
            if part.func_name == operators::ADD
                && part.target.is_none()
                && part.args.first().is_some_and(is_so_far) =>
        {
            part.args.iter_mut().skip(1).for_each(bound);
        }
        Expr::Call(part) if part.func_name == operators::CONDITIONAL && part.args.len() == 3 => {
            bound(&mut part.args[0]);
            bound_step(&mut part.args[1], so_far);
            bound_step(&mut part.args[2], so_far);
        }
        _ => bound(step),
    }
}

fn bound_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => {
            bound(&mut field.value);
            measure(&mut field.value);
        }
        EntryExpr::MapEntry(entry) => {
            bound(&mut entry.key);
            bound(&mut entry.value);
            measure(&mut entry.value);
        }
    }
}

/// What expressions see: names, and JSON values that are made CEL's when an expression asks.
#[derive(Debug, Default)]
pub struct Variables<'a> {
    names: Vec<(&'a str, &'a Value, Made<'a>)>,
}

/// A value as CEL has it, once it was asked for.
type Made<'a> = OnceLock<Box<dyn Val + 'a>>;

impl<'a> Variables<'a> {
    /// The top-level fields of an object; one that is null is not there.
    pub fn of(object: &'a Value) -> Self {
        let fields = object.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        Self { names: fields.map(|(name, value)| (&**name, value, OnceLock::new())).collect() }
    }

    /// Some values by name.
    pub fn named(names: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        let names = names.into_iter();
        Self { names: names.map(|(name, value)| (name, value, OnceLock::new())).collect() }
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let (_, value, made) = self.names.iter().find(|(name, ..)| *name == variable)?;
        Some(CowVal::Borrowed(&**made.get_or_init(|| convert(value))))
    }
}

/// A JSON value as CEL has it. Texts are borrowed.
fn convert<'a>(value: &'a Value) -> Box<dyn Val + 'a> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(is) => Box::new(CelBool::from(*is)),
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Number(number) => {
            if let Some(number) = number.as_i64() {
                Box::new(CelInt::from(number))
            } else if let Some(number) = number.as_u64() {
                Box::new(CelUInt::from(number))
            } else {
                Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN)))
            }
        }
        Value::Array(items) => {
            Box::new(CelList::from(items.iter().map(convert).collect::<Vec<_>>()))
        }
        Value::Object(fields) => {
            let entries = fields.iter().map(|(name, value)| {
                (CelMapKey::String(CelString::from(name.as_str())), convert(value))
            });
            Box::new(CelMap::from(entries.collect::<HashMap<_, _>>()))
        }
    }
}

#[cfg(test)]
#[path = "cel_tests.rs"]
mod tests;
