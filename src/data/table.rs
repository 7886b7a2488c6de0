//! Tables of numbers and words: rows of a CSV file as samples, rows that belong together as sequences, or the rows before another as what foretells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Dataset, Part, Preprocessing};
use crate::error::{Error, Result};
use crate::models::nearest;

/// What happens to rows with fields without a value, by name; the first is the default.
pub const MISSING: [&str; 3] = ["error", "drop", "mean"];

/// What is predicted, by name.
pub const TASKS: [&str; 2] = ["classification", "regression"];

/// Columns of words have at most so many different ones; more are names or texts.
const MAX_WORDS: usize = 100;

/// Whole numbers with at most so many different values are classes.
const MAX_CLASSES: usize = 20;

/// Values of a data set, 4 bytes each.
const MAX_VALUES: usize = 1 << 29;

/// Columns that say which part a row belongs to.
const PARTS: [&str; 3] = ["part", "split", "subset"];

/// How a table is to be read; what is left out is chosen from the data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableOptions {
    /// The column that is predicted [default: one called target, label, class or y, else the last].
    pub target: Option<String>,
    /// Of [`TASKS`] [default: classification of words and of up to 20 different whole numbers].
    pub task: Option<String>,
    /// Columns that are not looked at.
    pub ignore: Vec<String>,
    /// The column whose equal values make rows one sequence.
    pub sequence: Option<String>,
    /// Rows from which the target of the next one is predicted.
    pub window: Option<usize>,
    /// Of [`MISSING`].
    pub missing: Option<String>,
}

/// How a table was read; kept with a run, so that others are read the same way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    /// The column that is predicted.
    pub target: String,
    /// Whether it is a number.
    pub regression: bool,
    /// Of a number: subtracted from it, and divided by.
    pub target_mean: f64,
    /// See `target_mean`.
    pub target_std: f64,
    /// Columns that are not looked at.
    pub ignore: Vec<String>,
    /// The column whose equal values make rows one sequence; empty: none.
    pub sequence: String,
    /// Rows from which the target of the next one is predicted; 0: none.
    pub window: usize,
    /// Rows of the longest sequence; 0 without sequences.
    pub steps: usize,
    /// Of [`MISSING`].
    pub missing: String,
    /// The inputs in their order.
    pub columns: Vec<Column>,
}

/// An input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Column {
    /// Its name in the first line.
    pub name: String,
    /// Of numbers: subtracted, the mean of the training rows, of which some may become the validation part at random.
    pub mean: f64,
    /// Of numbers: divided by, their standard deviation.
    pub std: f64,
    /// Of words: each has an input of its own, which is 1 or 0.
    pub words: Vec<String>,
}

impl Column {
    fn width(&self) -> usize {
        self.words.len().max(1)
    }
}

/// Samples of a table, or of another one that is read like it.
pub struct Samples {
    /// `[N, C, H, W]`, standardised.
    pub values: Vec<f32>,
    /// The class of each sample, 0 of numbers.
    pub labels: Vec<u32>,
    /// The standardised number of each sample, none of classes.
    pub numbers: Vec<f32>,
    /// What a sample is called: its line, or the value that its rows have in common.
    pub names: Vec<String>,
    /// Which part it belongs to: 0 train, 1 validation, 2 test.
    parts: Vec<usize>,
    /// Rows that were left out, each with what it lacks.
    skipped: Vec<String>,
}

/// The text of a table.
struct Sheet {
    path: PathBuf,
    names: Vec<String>,
    /// Each with its line.
    rows: Vec<(u64, Vec<String>)>,
}

/// Whether a field stands for no value.
fn is_missing(field: &str) -> bool {
    ["", "na", "n/a", "nan", "null", "none", "?"].iter().any(|none| field.eq_ignore_ascii_case(none))
}

fn number(field: &str) -> Option<f64> {
    field.parse().ok().filter(|value: &f64| value.is_finite())
}

impl Sheet {
    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
        let first: Vec<u8> = bytes.iter().copied().take_while(|&b| b != b'\n').collect();
        let count = |delimiter: u8| first.iter().filter(|&&b| b == delimiter).count();
        let delimiter = [b',', b';', b'\t'].into_iter().max_by_key(|&d| (count(d), d == b',')).unwrap_or(b',');
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).delimiter(delimiter).trim(csv::Trim::All).from_reader(bytes);
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|e| Error::data(path, format!("is no table: {e}")))?;
            let line = record.position().map_or(0, |position| position.line());
            rows.push((line, record.iter().map(str::to_owned).collect::<Vec<_>>()));
        }
        // Numbers alone are no names.
        let headless = rows.first().is_none_or(|(_, first)| first.iter().all(|field| number(field).is_some()));
        let names: Vec<String> = match headless {
            true => (1..=rows.first().map_or(0, |(_, first)| first.len())).map(|i| i.to_string()).collect(),
            false => rows.remove(0).1,
        };
        if rows.is_empty() {
            return Err(Error::data(path, "has no rows below its first line"));
        }
        let mut seen = BTreeSet::new();
        if let Some(name) = names.iter().find(|name| name.is_empty() || !seen.insert(name.as_str())) {
            return Err(Error::data(path, format!("line 1: a column name is empty or there twice: {name:?}")));
        }
        Ok(Sheet { path: path.to_owned(), names, rows })
    }

    fn column(&self, name: &str) -> Result<usize> {
        self.names.iter().position(|own| own == name).ok_or_else(|| {
            let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
            // Any letter is near to any other.
            let near = if name.chars().count() > 2 { nearest(name, &names) } else { None };
            let hint = near.map_or_else(|| ".".into(), |near| format!("; did you mean {near}?"));
            Error::data(&self.path, format!("has no column {name}{hint} Its columns: {}", names.join(", ")))
        })
    }

    fn wrong<T>(&self, line: u64, column: &str, what: impl std::fmt::Display) -> Result<T> {
        Err(Error::data(&self.path, format!("line {line}, column {column}: {what}")))
    }

    /// The column of parts, if there is one.
    fn parts(&self) -> Option<usize> {
        self.names.iter().enumerate().find_map(|(i, name)| {
            let fits =
                PARTS.iter().any(|known| name.eq_ignore_ascii_case(known)) && self.rows.iter().all(|(_, row)| part(&row[i]).is_some());
            fits.then_some(i)
        })
    }
}

fn part(field: &str) -> Option<usize> {
    match field.to_lowercase().as_str() {
        "train" | "training" => Some(0),
        "val" | "valid" | "validation" => Some(1),
        "test" => Some(2),
        _ => None,
    }
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt())
}

/// The part of sample `i` of `count` that follow each other in time: 0 train, 1 validation, 2 test.
fn by_time(i: usize, count: usize) -> usize {
    (10 * i / count).saturating_sub(7)
}

/// Rows by their sequence, in the order of the first ones; without sequences all of them.
fn groups(sheet: &Sheet, sequence: Option<usize>) -> Result<Vec<(String, Vec<usize>)>> {
    let Some(column) = sequence else { return Ok(vec![(String::new(), (0..sheet.rows.len()).collect())]) };
    let (mut groups, mut places): (Vec<(String, Vec<usize>)>, BTreeMap<&str, usize>) = Default::default();
    for (row, (line, fields)) in sheet.rows.iter().enumerate() {
        let name = fields[column].as_str();
        if name.is_empty() {
            return sheet.wrong(*line, &sheet.names[column], "is empty, but says which sequence the row belongs to");
        }
        let place = *places.entry(name).or_insert(groups.len());
        if place == groups.len() {
            groups.push((name.to_owned(), Vec::new()));
        }
        groups[place].1.push(row);
    }
    Ok(groups)
}

/// Whether means and words are learned from each row: those of the training part, of a series those that come before all that it is tested on.
fn learned(sheet: &Sheet, parts: Option<usize>, sequence: Option<usize>, window: usize) -> Result<Vec<bool>> {
    if let Some(parts) = parts {
        return Ok(sheet.rows.iter().map(|(_, row)| part(&row[parts]) == Some(0)).collect());
    }
    let mut learned = vec![true; sheet.rows.len()];
    if window > 0 {
        for (_, rows) in groups(sheet, sequence)? {
            let count = rows.len().saturating_sub(window);
            (0..count).filter(|&i| by_time(i, count) > 0).for_each(|i| learned[rows[window + i]] = false);
        }
    }
    Ok(learned)
}

/// In the order of numbers where all are, else of letters.
fn sorted(values: BTreeSet<&str>) -> Vec<String> {
    let mut values: Vec<String> = values.into_iter().map(str::to_owned).collect();
    if values.iter().all(|value| number(value).is_some()) {
        values.sort_by(|a, b| number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)));
    }
    values
}

impl Table {
    /// How a table is read, and its classes.
    fn infer(sheet: &Sheet, options: &TableOptions) -> Result<(Self, Vec<String>)> {
        let missing = options.missing.clone().unwrap_or_else(|| MISSING[0].into());
        for (flag, value, known) in [("missing", Some(&missing), &MISSING[..]), ("task", options.task.as_ref(), &TASKS)] {
            if let Some(value) = value.filter(|value| !known.contains(&value.as_str())) {
                return Err(Error::Config(format!("--{flag} {value}: use one of {}", known.join(", "))));
            }
        }
        if options.window == Some(0) {
            return Err(Error::Config("--window 0: give the number of rows that the next one is predicted from".into()));
        }
        let window = options.window.unwrap_or(0);
        let parts = sheet.parts();
        let sequence = options.sequence.as_ref().map(|name| sheet.column(name)).transpose()?;
        let ignored = options.ignore.iter().map(|name| sheet.column(name)).collect::<Result<Vec<_>>>()?;
        let aside = |i: usize| Some(i) == parts || Some(i) == sequence || ignored.contains(&i);
        let usual = ["target", "label", "class", "y"];
        let target = match &options.target {
            Some(name) => sheet.column(name)?,
            None => {
                let named = (0..sheet.names.len()).find(|&i| !aside(i) && usual.iter().any(|u| sheet.names[i].eq_ignore_ascii_case(u)));
                let last = (0..sheet.names.len()).rev().find(|&i| !aside(i));
                named.or(last).ok_or_else(|| Error::data(&sheet.path, "every column is left out: there is nothing to predict"))?
            }
        };
        if aside(target) {
            return Err(Error::Config(format!("--target {}: this column has another use", sheet.names[target])));
        }
        // What is foretold is also what it is foretold from.
        let inputs: Vec<usize> = (0..sheet.names.len()).filter(|&i| !aside(i) && (i != target || window > 0)).collect();
        if inputs.is_empty() {
            let what =
                "has one column; a table has columns to predict from and one that is predicted (or give --window N to foretell a series)";
            return Err(Error::data(&sheet.path, what));
        }
        let learned = learned(sheet, parts, sequence, window)?;
        let fields = |i: usize| sheet.rows.iter().zip(&learned).filter(|(_, learned)| **learned).map(move |((_, row), _)| row[i].as_str());
        let present = |i: usize| fields(i).filter(|field| !is_missing(field));
        let columns = inputs
            .iter()
            .map(|&i| {
                let name = sheet.names[i].clone();
                let (all, numbers): (usize, Vec<f64>) = (present(i).count(), present(i).filter_map(number).collect());
                if 2 * numbers.len() > all {
                    let (mean, std) = moments(&numbers);
                    if std == 0.0 {
                        return Err(Error::data(&sheet.path, says_nothing(&name, &mean)));
                    }
                    return Ok(Column { name, mean, std, words: Vec::new() });
                }
                let words = sorted(present(i).collect());
                match words.len() {
                    0 => Err(Error::data(&sheet.path, format!("column {name} has no values; leave it out with --ignore {name}"))),
                    1 => Err(Error::data(&sheet.path, says_nothing(&name, &words[0]))),
                    n if n > MAX_WORDS => Err(Error::data(
                        &sheet.path,
                        format!("column {name} has {n} different words, at most {MAX_WORDS} can be told apart; leave it out with --ignore {name}"),
                    )),
                    _ => Ok(Column { name, mean: 0.0, std: 1.0, words }),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        let (all, numbers): (usize, Vec<f64>) = (present(target).count(), present(target).filter_map(number).collect());
        let classes = sorted(present(target).collect());
        let name = &sheet.names[target];
        let whole = numbers.iter().all(|value| value.fract() == 0.0);
        // Of three rows with the numbers 0, 1, 0 two are classes; 1, 2, 3, 4 of four rows are numbers.
        let few = classes.len() <= MAX_CLASSES && classes.len() < all;
        let regression = match options.task.as_deref() {
            Some(task) => task == "regression",
            None => 2 * numbers.len() > all && !(whole && few && window == 0),
        };
        if classes.len() < 2 {
            return Err(Error::data(
                &sheet.path,
                format!(
                    "column {name}, which is to be predicted, has {} value{}; there is nothing to learn",
                    classes.len(),
                    if classes.len() == 1 { "" } else { "s" }
                ),
            ));
        }
        let (target_mean, target_std) = if regression { moments(&numbers) } else { (0.0, 1.0) };
        if regression && target_std == 0.0 {
            return Err(Error::data(&sheet.path, format!("column {name}, which is to be predicted, holds no two different numbers")));
        }
        let mut table = Table {
            target: name.clone(),
            regression,
            target_mean,
            target_std,
            ignore: options.ignore.clone(),
            sequence: sequence.map_or_else(String::new, |i| sheet.names[i].clone()),
            window,
            steps: 0,
            missing,
            columns,
        };
        if table.masked() {
            table.steps = groups(sheet, sequence)?.iter().map(|(_, rows)| rows.len()).max().unwrap_or(0);
        }
        Ok((table, if regression { vec![name.clone()] } else { classes }))
    }

    /// Whether samples are rows that follow each other, and not all of them have as many.
    pub fn masked(&self) -> bool {
        !self.sequence.is_empty() && self.window == 0
    }

    /// `[C, H, W]` of a sample: the inputs of a row; of rows that follow each other `[1, rows, inputs]`, of sequences with an input in front that is 1
    /// where there is a row.
    pub fn input(&self) -> [usize; 3] {
        let width: usize = self.columns.iter().map(Column::width).sum();
        match (self.masked(), self.window) {
            (true, _) => [1, self.steps, width + 1],
            (false, 0) => [width, 1, 1],
            (false, window) => [1, window, width],
        }
    }

    /// A number of the target's, of a network's standardised answer.
    pub fn number(&self, answer: f64) -> f64 {
        answer * self.target_std + self.target_mean
    }

    /// The inputs of a row, or what it lacks.
    fn inputs(&self, sheet: &Sheet, places: &[usize], row: usize, values: &mut Vec<f32>) -> Result<Option<String>> {
        let (line, fields) = &sheet.rows[row];
        for (column, &place) in self.columns.iter().zip(places) {
            let field = &fields[place];
            let missing = is_missing(field);
            if missing && self.missing != "mean" {
                return Ok(Some(column.name.clone()));
            }
            if !column.words.is_empty() {
                if !missing && !column.words.contains(field) {
                    let words = column.words.join(", ");
                    return sheet.wrong(*line, &column.name, format!("{field:?} is none of the words that were learned: {words}"));
                }
                values.extend(column.words.iter().map(|word| (word == field) as u32 as f32));
                continue;
            }
            match number(field) {
                Some(value) => values.push(((value - column.mean) / column.std) as f32),
                None if missing => values.push(0.0),
                None => {
                    let hint = format!(
                        "{field:?} is no number, as others of this column are; correct it, or train without the column: --ignore {}",
                        column.name
                    );
                    return sheet.wrong(*line, &column.name, hint);
                }
            }
        }
        Ok(None)
    }

    /// The samples of a file, with what they are to be (`classes`), or without.
    fn samples(&self, sheet: &Sheet, classes: Option<&[String]>) -> Result<Samples> {
        let places = self.columns.iter().map(|column| sheet.column(&column.name)).collect::<Result<Vec<_>>>()?;
        let target = classes.map(|_| sheet.column(&self.target)).transpose()?;
        let parts = sheet.parts();
        let mut samples = Samples {
            values: Vec::new(),
            labels: Vec::new(),
            numbers: Vec::new(),
            names: Vec::new(),
            parts: Vec::new(),
            skipped: Vec::new(),
        };
        let [c, h, w] = self.input();
        let sequence = (!self.sequence.is_empty()).then(|| sheet.column(&self.sequence)).transpose()?;
        for (name, rows) in groups(sheet, sequence)? {
            // Rows that have all they need, with their place in the group and their inputs.
            let mut whole: Vec<(usize, usize, Vec<f32>)> = Vec::new();
            for (place, row) in rows.into_iter().enumerate() {
                let mut values = Vec::new();
                let mut lacks = self.inputs(sheet, &places, row, &mut values)?;
                let (line, fields) = &sheet.rows[row];
                if lacks.is_none() && target.is_some_and(|target| is_missing(&fields[target])) {
                    lacks = Some(self.target.clone());
                }
                match lacks {
                    Some(column) if self.missing == "error" => {
                        return sheet.wrong(
                            *line,
                            &column,
                            "has no value; with --missing drop such rows are left out, with --missing mean the mean takes its place",
                        );
                    }
                    Some(column) => samples.skipped.push(format!("line {line}: no value in column {column}")),
                    None => whole.push((row, place, values)),
                }
            }
            // Where samples begin and end among these rows, and whose target is theirs.
            let forecast = self.window > 0;
            // Where a row was left out, those around it do not follow each other.
            let unbroken = |first: usize, last: usize| whole[last].1 - whole[first].1 == last - first;
            let spans: Vec<(std::ops::Range<usize>, Option<usize>)> = match (self.masked(), forecast) {
                _ if whole.is_empty() => Vec::new(),
                (true, _) => vec![(0..whole.len(), Some(whole.len() - 1))],
                (_, true) if target.is_some() => (self.window..whole.len())
                    .filter(|&next| unbroken(next - self.window, next))
                    .map(|next| (next - self.window..next, Some(next)))
                    .collect(),
                // What comes after the last row is not known yet.
                (_, true) => (whole.len() >= self.window && unbroken(whole.len() - self.window, whole.len() - 1))
                    .then(|| (whole.len() - self.window..whole.len(), None))
                    .into_iter()
                    .collect(),
                _ => (0..whole.len()).map(|i| (i..i + 1, Some(i))).collect(),
            };
            if forecast && spans.is_empty() {
                let of = if name.is_empty() { String::new() } else { format!(" of {} {name}", self.sequence) };
                let need = self.window.saturating_add(target.is_some() as usize);
                return Err(Error::data(
                    &sheet.path,
                    format!("{} rows{of} are too few for --window {}, which takes {need} that follow each other", whole.len(), self.window),
                ));
            }
            let count = spans.len();
            for (i, (span, last)) in spans.into_iter().enumerate() {
                if self.masked() && span.len() > h {
                    return Err(Error::data(
                        &sheet.path,
                        format!("{} {name} has {} rows; the network reads at most {h}", self.sequence, span.len()),
                    ));
                }
                if samples.values.len() + c * h * w > MAX_VALUES {
                    return Err(Error::data(
                        &sheet.path,
                        format!(
                            "samples of {c} x {h} x {w} values would not fit memory (2 GiB); give shorter sequences or a smaller --window"
                        ),
                    ));
                }
                let begin = samples.values.len();
                for (row, _, values) in &whole[span.clone()] {
                    if let Some(parts) = parts.filter(|_| self.masked())
                        && sheet.rows[*row].1[parts] != sheet.rows[whole[0].0].1[parts]
                    {
                        let what = format!("{} {name} is in two parts; what is learned would be tested on itself", self.sequence);
                        return sheet.wrong(sheet.rows[*row].0, &sheet.names[parts], what);
                    }
                    if self.masked() {
                        samples.values.push(1.0);
                    }
                    samples.values.extend(values);
                }
                samples.values.resize(begin + c * h * w, 0.0);
                let end = last.unwrap_or(span.end - 1);
                let (line, fields) = &sheet.rows[whole[end].0];
                // Of a series what comes later is not learned from: eight tenths are, one is for validation, the last for the test.
                let by_time = if forecast { by_time(i, count) } else { 0 };
                samples.parts.push(parts.and_then(|parts| part(&fields[parts])).unwrap_or(by_time));
                samples.names.push(if self.masked() { format!("{} {name}", self.sequence) } else { format!("line {line}") });
                let (Some(target), Some(classes)) = (target, classes) else { continue };
                let field = &fields[target];
                if self.regression {
                    let Some(value) = number(field) else {
                        return sheet.wrong(*line, &self.target, format!("{field:?} is no number"));
                    };
                    samples.numbers.push(((value - self.target_mean) / self.target_std) as f32);
                    samples.labels.push(0);
                } else {
                    let Some(class) = classes.iter().position(|class| class == field) else {
                        return sheet.wrong(*line, &self.target, format!("{field:?} is none of the classes {}", classes.join(", ")));
                    };
                    samples.labels.push(class as u32);
                }
            }
        }
        if samples.names.is_empty() {
            return Err(Error::data(&sheet.path, format!("no row is complete ({} left out)", samples.skipped.len())));
        }
        Ok(samples)
    }

    /// The samples of another file without what they are to be; of a series what comes after its end.
    ///
    /// # Errors
    /// [`Error::Data`] naming file, line and column of what does not fit.
    pub fn read(&self, path: &Path) -> Result<Samples> {
        self.samples(&Sheet::read(path)?, None)
    }

    /// A data set of another file that is read like this one.
    ///
    /// # Errors
    /// [`Error::Data`] naming file, line and column of what does not fit.
    pub fn load(&self, path: &Path, classes: &[String]) -> Result<Dataset> {
        let sheet = Sheet::read(path)?;
        self.dataset(&sheet, classes.to_vec())
    }

    fn dataset(&self, sheet: &Sheet, classes: Vec<String>) -> Result<Dataset> {
        let samples = self.samples(sheet, Some(&classes))?;
        let [channels, height, width] = self.input();
        let n = samples.names.len();
        let rows = |part: usize| (0..n).filter(|&i| samples.parts[i] == part).collect::<Vec<usize>>();
        let all = Part::numbers(samples.values, samples.labels, samples.numbers);
        let some = |part: usize| Some(rows(part)).filter(|rows| !rows.is_empty()).map(|rows| Arc::new(all.select(&rows)));
        let Some(train) = some(0) else { return Err(Error::data(&sheet.path, "no row belongs to the training part")) };
        Ok(Dataset {
            name: sheet.path.file_stem().map_or_else(|| "table".into(), |name| name.to_string_lossy().into_owned()),
            classes,
            channels,
            height,
            width,
            preprocessing: Preprocessing::new(channels),
            train,
            val: some(1),
            test: some(2),
            skipped: samples.skipped,
            table: Some(Arc::new(self.clone())),
        })
    }
}

fn says_nothing(name: &str, value: &dyn std::fmt::Display) -> String {
    format!("column {name} is {value} in every row, which says nothing; leave it out with --ignore {name}")
}

/// Whether a file is a table of numbers and words: a .csv or .tsv that does not name pictures in its first column.
pub fn is_table(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    if !path.is_file() || ![".csv", ".tsv"].iter().any(|end| name.ends_with(end)) {
        return false;
    }
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut line = String::new();
    // A file that cannot be read is told of when it is.
    let _ = std::io::BufRead::read_line(&mut std::io::BufReader::new(std::io::Read::take(file, 1 << 16)), &mut line);
    let first = line.split([',', ';', '\t']).next().unwrap_or("").trim().trim_matches('"').to_lowercase();
    let pictures = ["path", "file", "filename", "image"].contains(&first.as_str());
    #[cfg(feature = "image")]
    let pictures = pictures || crate::io::picture::ENDINGS.iter().any(|end| first.ends_with(&format!(".{end}")));
    !pictures
}

/// The data set of a table: a CSV file (also with semicolons or tabs) whose first line names the columns, or has numbers, too. Columns of numbers are
/// standardised by the training rows, columns of words become one input a word. A column `part` (or `split`) may say train, val or test.
///
/// # Errors
/// [`Error::Config`] for options that do not fit, [`Error::Data`] naming file, line and column of what is wrong.
pub fn load_table(path: &Path, options: &TableOptions) -> Result<Dataset> {
    let sheet = Sheet::read(path)?;
    let (table, classes) = Table::infer(&sheet, options)?;
    table.dataset(&sheet, classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Loader, LoaderOptions};

    fn load(text: &str, change: impl Fn(&mut TableOptions)) -> Result<Dataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let mut options = TableOptions::default();
        change(&mut options);
        load_table(&path, &options)
    }

    fn all(data: &Dataset, part: &Option<Arc<Part>>) -> (Vec<f32>, Vec<i32>, Vec<f32>) {
        let part = part.as_ref().unwrap();
        let options = LoaderOptions { batch_size: 100, ..LoaderOptions::default() };
        let batch = Loader::new(data, part, options).unwrap().next().unwrap().unwrap();
        (batch.images, batch.targets, batch.numbers)
    }

    #[test]
    fn numbers_are_standardised_and_words_told_apart() {
        let data = load("x,colour,y\n1,red,1.5\n3,blue,2.5\n1,red,3.5\n3,red,4.5\n", |_| ()).unwrap();
        let table = data.table.clone().unwrap();
        assert_eq!((data.channels, data.height, data.width, &data.classes[..]), (3, 1, 1, &["y".to_owned()][..]));
        let (x, _, y) = all(&data, &Some(data.train.clone()));
        // x has mean 2 and deviation 1; words in the order of letters.
        assert_eq!(x, [-1., 0., 1., 1., 1., 0., -1., 0., 1., 1., 0., 1.]);
        let deviation = 1.25f32.sqrt();
        assert!(y.iter().zip([-1.5, -0.5, 0.5, 1.5]).all(|(a, b)| (a - b / deviation).abs() < 1e-6), "{y:?}");
        assert!((table.number(y[3] as f64) - 4.5).abs() < 1e-6);
    }

    #[test]
    fn whole_numbers_and_words_are_classes_unless_told_otherwise() {
        let classes = |text: &str, task: Option<&str>| {
            load(text, |o| o.task = task.map(str::to_owned)).map(|d| (d.classes.clone(), d.table.unwrap().regression))
        };
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(classes("x,y\n1,0\n2,1\n3,0\n", None).unwrap(), (names(&["0", "1"]), false));
        assert_eq!(classes("x,y\n1,10\n2,9\n3,9\n", None).unwrap(), (names(&["9", "10"]), false));
        assert_eq!(classes("x,y\n1,10\n2,9\n3,9\n", Some("regression")).unwrap(), (names(&["y"]), true));
        assert_eq!(classes("x,y\n1,1\n2,2\n3,3\n", None).unwrap(), (names(&["y"]), true));
        // Without names, with semicolons, and with the target named as targets are.
        assert_eq!(classes("u;v\n1;a\n2;b\n", None).unwrap(), (names(&["a", "b"]), false));
        assert_eq!(classes("label,x\ncat,1\ndog,2\n", None).unwrap(), (names(&["cat", "dog"]), false));
        assert_eq!(load("1,1.5\n2,2.5\n", |_| ()).unwrap().classes, ["2"]);
    }

    #[test]
    fn rows_of_one_name_are_a_sequence_with_its_length() {
        let data = load("id,x,y\na,1,up\nb,3,down\na,3,up\n", |o| o.sequence = Some("id".into())).unwrap();
        let (x, y, _) = all(&data, &Some(data.train.clone()));
        // Two rows of (is there, x): of b one row alone.
        let [low, high] = [(1.0 - 7.0 / 3.0) / (8.0f64 / 9.0).sqrt(), (3.0 - 7.0 / 3.0) / (8.0f64 / 9.0).sqrt()].map(|v| v as f32);
        assert_eq!((data.channels, data.height, data.width, y), (1, 2, 2, vec![1, 0]));
        assert_eq!(x, [1.0, low, 1.0, high, 1.0, high, 0.0, 0.0]);
        let longer = "id,x\na,1\na,2\na,3\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, longer).unwrap();
        let error = data.table.unwrap().read(&path).err().unwrap().to_string();
        assert!(error.contains("id a has 3 rows; the network reads at most 2"), "{error}");
    }

    #[test]
    fn a_window_foretells_the_next_row_and_later_ones_are_the_test() {
        let text = (0..22).fold("y\n".to_owned(), |text, t| text + &format!("{}.5\n", t));
        let data = load(&text, |o| o.window = Some(2)).unwrap();
        let counts = [Some(data.train.clone()), data.val.clone(), data.test.clone()].map(|part| part.unwrap().len());
        assert_eq!(counts, [16, 2, 2]);
        let table = data.table.clone().unwrap();
        let (x, _, y) = all(&data, &data.test);
        let back = |v: f32, c: &Column| v as f64 * c.std + c.mean;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} {b}");
        near(back(x[0], &table.columns[0]), 18.5);
        near(back(x[1], &table.columns[0]), 19.5);
        near(table.number(y[0] as f64), 20.5);
        // What comes after the end.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        let samples = table.read(&path).unwrap();
        assert_eq!((samples.names.len(), samples.values.len()), (1, 2));
        near(back(samples.values[1], &table.columns[0]), 21.5);
    }

    #[test]
    fn what_comes_later_and_gaps_are_not_learned_from() {
        // The last tenths would change mean and deviation beyond measure.
        let text = (0..22).fold("y\n".to_owned(), |text, t| text + &format!("{}.5\n", if t < 18 { t % 3 } else { 1000 }));
        let table = load(&text, |o| o.window = Some(2)).unwrap().table.unwrap();
        assert_eq!((table.columns[0].mean, table.target_mean), (1.5, 1.5));
        // Without the fourth row there is no window over it.
        let text = "y\n1.5\n2\n3\n?\n5\n6\n7\n8\n";
        let with = |o: &mut TableOptions| (o.window, o.missing) = (Some(2), Some("drop".into()));
        let data = load(text, with).unwrap();
        let table = data.table.clone().unwrap();
        let next: Vec<f64> = all(&data, &Some(data.train.clone())).2.iter().map(|&y| table.number(y as f64).round()).collect();
        assert_eq!(next, [3.0, 7.0, 8.0]);
        assert!(load("y\n1\n2\n?\n4\n5\n", with).unwrap_err().to_string().contains("that follow each other"));
    }

    #[test]
    fn a_sequence_is_in_one_part() {
        let text = "id,x,y,part\na,1,0,train\na,2,0,test\nb,3,1,train\nc,4,0,train\n";
        let error = load(text, |o| o.sequence = Some("id".into())).unwrap_err().to_string();
        assert!(error.contains("line 3, column part: id a is in two parts"), "{error}");
    }

    #[test]
    fn a_column_says_which_part_rows_belong_to() {
        let data = load("x,y,split\n1,0,train\n2,1,train\n9,0,test\n4,0,val\n5,0,train\n", |_| ()).unwrap();
        assert_eq!((data.train.len(), data.val.as_ref().unwrap().len(), data.test.as_ref().unwrap().len()), (3, 1, 1));
        // The test row does not change what is subtracted.
        assert_eq!(data.table.unwrap().columns[0].mean, 8.0 / 3.0);
    }

    #[test]
    fn rows_that_lack_a_value_are_named_dropped_or_filled() {
        let text = "x,c,y\n1,a,0\n,b,1\n5,?,0\n3,b,\n3,a,1\n";
        let with = |missing: &str| load(text, |o| o.missing = Some(missing.into()));
        assert!(with("error").unwrap_err().to_string().contains("line 3, column x: has no value; with --missing drop"));
        let dropped = with("drop").unwrap();
        assert_eq!(dropped.train.len(), 2);
        assert_eq!(dropped.skipped, ["line 3: no value in column x", "line 4: no value in column c", "line 5: no value in column y"]);
        let filled = with("mean").unwrap();
        assert_eq!((filled.train.len(), &filled.skipped[..]), (4, &["line 5: no value in column y".to_owned()][..]));
        let (x, ..) = all(&filled, &Some(filled.train.clone()));
        assert_eq!((&x[3..6], &x[7..9]), (&[0.0, 0.0, 1.0][..], &[0.0, 0.0][..]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, words) in [
            ("", "has no rows"),
            ("a,b\n", "has no rows below its first line"),
            ("a\n1\n2\n", "has one column"),
            ("a,b\n1,2\nx,3\n4,5\n6,7\n", "line 3, column a: \"x\" is no number"),
            ("a,b\n1,2\n1,3\n", "column a is 1 in every row"),
            ("a,b\n1,2\n2,2\n", "column b, which is to be predicted, has 1 value;"),
            ("a,b\n1,2\n2\n", "found record with 1 fields"),
            ("a,a\n1,2\n", "a column name is empty or there twice: \"a\""),
            ("a,b\n1,inf\n2,3.5\n3,4\n5,6\n", "line 2, column b: \"inf\" is no number"),
            ("a,b\n,2\n,3\n", "column a has no values"),
        ] {
            let error = load(text, |_| ()).unwrap_err();
            assert!(error.is_bad_input() && error.to_string().contains(words), "{text:?}: {error}");
        }
        let ids = (0..200).fold("id,y\n".to_owned(), |text, i| text + &format!("name{i},{}\n", i % 2));
        assert!(load(&ids, |_| ()).unwrap_err().to_string().contains("column id has 200 different words, at most 100"));
        assert!(load(&ids, |o| o.target = Some("z".into())).unwrap_err().to_string().contains("has no column z. Its columns: id, y"));
        assert!(load(&ids, |o| o.task = Some("ranking".into())).unwrap_err().to_string().contains("--task ranking: use one of"));
        assert!(
            load("y\n1\n2\n", |o| o.window = Some(2)).unwrap_err().to_string().contains("2 rows are too few for --window 2, which takes 3")
        );
        assert!(load("y\n1\n2\n", |o| o.window = Some(0)).unwrap_err().to_string().contains("--window 0"));
        assert!(
            load("id,x,y\n,1,2\nb,2,3\n", |o| o.sequence = Some("id".into()))
                .unwrap_err()
                .to_string()
                .contains("line 2, column id: is empty")
        );
    }
}
