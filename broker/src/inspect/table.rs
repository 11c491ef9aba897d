//! An inspection as aligned columns.

use std::fmt;

use super::{InspectedQueue, Inspection};

/// Writes one table after the other; those without rows are left out, but for the queues.
pub(super) fn write(inspection: &Inspection, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", inspection.source)?;
    if let Some(pid) = inspection.owner_pid {
        write!(f, ", open in process {pid}")?;
    }
    writeln!(f)?;
    let queues = &inspection.queues;

    let mut table = Table::new(
        ["QUEUE", "NAMESPACE", "TASK"],
        ["PARTITIONS", "MESSAGES", "WAITING", "LEASED", "DEAD"],
    );
    for queue in queues {
        let m = queue.messages;
        table.row(
            [&queue.name, &queue.namespace, &queue.task],
            [
                queue.partitions.len() as u64,
                m.total,
                m.waiting,
                m.leased,
                m.dead_letters,
            ],
        );
    }
    table.write(f)?;

    let mut table = Table::new(
        ["QUEUE", "PARTITION", "OLDEST WAITING", "NEWEST"],
        ["MESSAGES", "WAITING", "LEASED", "DEAD"],
    );
    for (queue, part) in each(queues, |queue| &queue.partitions) {
        let m = part.messages;
        // A time is worth showing where something waits.
        let oldest = part.oldest_at.as_deref().filter(|_| m.waiting > 0);
        table.row(
            [
                &queue.name,
                &part.name,
                oldest.unwrap_or(""),
                part.newest_at.as_deref().unwrap_or(""),
            ],
            [m.total, m.waiting, m.leased, m.dead_letters],
        );
    }
    table.write_unless_empty(f)?;

    let mut table = Table::new(
        ["QUEUE", "GROUP", "MODE"],
        ["PARTITIONS", "LAG", "LAG SECONDS", "LEASES"],
    );
    for (queue, group) in each(queues, |queue| &queue.groups) {
        let leases = group
            .partitions
            .iter()
            .filter(|part| part.lease_id.is_some());
        table.row(
            [
                &queue.name,
                &group.name,
                group.mode.as_deref().unwrap_or(""),
            ],
            [
                group.partitions.len() as u64,
                group.lag,
                group.lag_seconds,
                leases.count() as u64,
            ],
        );
    }
    table.write_unless_empty(f)?;

    let mut table = Table::new(["QUEUE", "GROUP", "PARTITION", "LEASE"], ["LAG"]);
    for (queue, group) in each(queues, |queue| &queue.groups) {
        for part in &group.partitions {
            if let Some(lease) = &part.lease_id {
                table.row([&queue.name, &group.name, &part.name, lease], [part.lag]);
            }
        }
    }
    table.write_unless_empty(f)
}

fn each<'a, T: 'a>(
    queues: &'a [InspectedQueue],
    of: fn(&'a InspectedQueue) -> &'a Vec<T>,
) -> impl Iterator<Item = (&'a InspectedQueue, &'a T)> {
    queues
        .iter()
        .flat_map(move |queue| of(queue).iter().map(move |item| (queue, item)))
}

/// Rows of texts, to the left, and of numbers, to the right.
struct Table<const T: usize, const N: usize> {
    rows: Vec<([String; T], [String; N])>,
}

impl<const T: usize, const N: usize> Table<T, N> {
    fn new(texts: [&str; T], numbers: [&str; N]) -> Table<T, N> {
        let heads = (texts.map(str::to_owned), numbers.map(str::to_owned));
        Table { rows: vec![heads] }
    }

    fn row(&mut self, texts: [&str; T], numbers: [u64; N]) {
        let text = |text: &str| match text {
            "" => "-".to_owned(),
            // Names of other brokers may hold anything.
            text if text.contains(char::is_control) => text.escape_debug().to_string(),
            text => text.to_owned(),
        };
        self.rows
            .push((texts.map(text), numbers.map(|number| number.to_string())));
    }

    fn write_unless_empty(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows.len() {
            0 | 1 => Ok(()),
            _ => self.write(f),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut texts, mut numbers) = ([0; T], [0; N]);
        for row in &self.rows {
            widen(&mut texts, &row.0);
            widen(&mut numbers, &row.1);
        }
        writeln!(f)?;
        for row in &self.rows {
            let mut line = String::new();
            for (text, width) in row.0.iter().zip(texts) {
                line.push_str(&format!("{text:<width$}  "));
            }
            for (number, width) in row.1.iter().zip(numbers) {
                line.push_str(&format!("{number:>width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn widen(widths: &mut [usize], cells: &[String]) {
    for (width, cell) in widths.iter_mut().zip(cells) {
        *width = (*width).max(cell.chars().count());
    }
}
