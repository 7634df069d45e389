//! The shape of one trace: which spans there are, who caused whom, when they ran and what failed.
//! What is written on the spans is decided in `attributes`.

use super::dice::Dice;
use super::world::World;

/// The most spans of a trace.
pub const TRACE_SPANS_MAX: usize = 2000;
/// How deep calls go.
const DEPTH_MAX: u8 = 14;
/// Of sizes below this many spans one half, above the other.
const SIZE_MEDIAN: f64 = 8.0;
/// Standard deviation of the logarithm of sizes; gives a mean of 20 for a median of 8.
const SIZE_SPREAD: f64 = 1.354;

/// What a span stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A service answers a call.
    Server,
    /// A service calls another one.
    Client,
    /// A service calls somebody who is not traced.
    External,
    /// A statement sent to a database.
    Database,
    /// A look-up in a cache.
    Cache,
    /// A function worth a span.
    Internal,
    /// A message is sent.
    Producer,
    /// A message is worked on.
    Consumer,
}

impl Work {
    /// Whether it can cause other spans.
    const fn hosts(self) -> bool {
        matches!(self, Work::Server | Work::Internal | Work::Consumer)
    }
}

/// A span to be.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) work: Work,
    /// Position of its cause in the list; none for the root.
    pub(crate) parent: Option<usize>,
    /// Who reports it.
    pub(crate) service: usize,
    /// The other side of a call or message; itself otherwise.
    pub(crate) peer: usize,
    /// Which route of the called service, or which statement.
    pub(crate) choice: usize,
    depth: u8,
    /// Nanoseconds since the epoch.
    pub(crate) start: u64,
    /// Nanoseconds since the epoch.
    pub(crate) end: u64,
    pub(crate) failed: bool,
}

/// How many spans the next trace has.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and kept in range"
)]
pub(crate) fn draw_size(dice: &mut Dice) -> usize {
    let size = SIZE_MEDIAN * (SIZE_SPREAD * dice.normal()).exp();
    (size.round().clamp(1.0, TRACE_SPANS_MAX as f64)) as usize
}

/// A trace of `size` spans whose root starts at `start`, parents before children.
pub(crate) fn draw(world: &World, dice: &mut Dice, size: usize, start: u64) -> Vec<Node> {
    let mut shape = Shape { world, dice, nodes: Vec::with_capacity(size), hosts: Vec::new() };
    shape.root(start, size);
    while shape.nodes.len() < size {
        shape.grow(size - shape.nodes.len());
    }
    shape.fail();
    shape.nodes
}

struct Shape<'a> {
    world: &'a World,
    dice: &'a mut Dice,
    nodes: Vec<Node>,
    /// Positions of the spans that may cause others.
    hosts: Vec<usize>,
}

impl Shape<'_> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds in nanoseconds"
    )]
    fn root(&mut self, start: u64, size: usize) {
        let entries = &self.world.entries;
        let service = entries[self.dice.skewed(entries.len())];
        let choice = self.dice.skewed(self.world.services[service].routes.len());
        let millis = 40.0 * (0.9 * self.dice.normal()).exp() * (1.0 + size as f64 / 40.0);
        let duration = (millis.clamp(0.2, 120_000.0) * 1e6) as u64;
        self.nodes.push(Node {
            work: Work::Server,
            parent: None,
            service,
            peer: service,
            choice,
            depth: 0,
            start,
            end: start + duration,
            failed: false,
        });
        self.hosts.push(0);
    }

    /// Adds one span, two that belong together, or a run of like ones.
    fn grow(&mut self, room: usize) {
        let host = self.hosts[self.dice.index(self.hosts.len())];
        let service = &self.world.services[self.nodes[host].service];
        let deep = self.nodes[host].depth >= DEPTH_MAX;
        match self.dice.below(100) {
            0..45 if room >= 2 && !deep && !service.callees.is_empty() => self.call(host),
            45..70 if service.database.is_some() => self.query(host, room),
            70..78 if service.cache => self.leaf(host, Work::Cache, 0),
            78..84 if room >= 2 && !deep && service.topic.is_some() => self.publish(host),
            84..86 => self.leaf(host, Work::External, 0),
            _ if room > 40 && service.database.is_some() => self.query(host, room),
            _ if deep => self.leaf(host, Work::External, 0),
            _ => self.leaf(host, Work::Internal, 0),
        }
    }

    /// A call and its answer: a client and a server span.
    fn call(&mut self, host: usize) {
        let callees = &self.world.services[self.nodes[host].service].callees;
        let peer = callees[self.dice.skewed(callees.len())];
        let choice = self.dice.skewed(self.world.services[peer].routes.len());
        self.leaf(host, Work::Client, choice);
        let client = self.nodes.len() - 1;
        self.nodes[client].peer = peer;
        let caller = self.nodes[client].clone();
        let way = Dice::part_of(caller.end - caller.start, self.dice.unit() * 0.1);
        self.push(Node {
            work: Work::Server,
            parent: Some(client),
            service: peer,
            peer: caller.service,
            start: caller.start + way,
            end: caller.end - way,
            ..caller
        });
    }

    /// A message and the work it causes, which may outlast the sender.
    fn publish(&mut self, host: usize) {
        let service = self.nodes[host].service;
        let Some(topic) = &self.world.services[service].topic else { return };
        self.leaf(host, Work::Producer, 0);
        let producer = self.nodes.len() - 1;
        self.nodes[producer].peer = topic.consumer;
        let sender = self.nodes[producer].clone();
        let start = sender.end + self.dice.between(200_000, 80_000_000);
        let end = start + self.dice.between(500_000, 150_000_000);
        self.push(Node {
            work: Work::Consumer,
            parent: Some(producer),
            service: topic.consumer,
            peer: service,
            start,
            end,
            ..sender
        });
    }

    /// A statement; in large traces often the same one for every row of a list.
    fn query(&mut self, host: usize, room: usize) {
        let service = &self.world.services[self.nodes[host].service];
        let Some(database) = &service.database else { return };
        let choice = self.dice.skewed(database.statements.len());
        let runs = if room > 40 && self.dice.chance(400) { self.dice.between(5, 30) } else { 1 };
        for _ in 0..runs {
            self.leaf(host, Work::Database, choice);
        }
    }

    /// A span within the time of `host`.
    fn leaf(&mut self, host: usize, work: Work, choice: usize) {
        let parent = &self.nodes[host];
        let duration = parent.end - parent.start;
        let offset = Dice::part_of(duration, self.dice.unit() * 0.7);
        let unit = self.dice.unit();
        let length = Dice::part_of(duration - offset, 0.02 + 0.95 * unit * unit);
        let node = Node {
            work,
            parent: Some(host),
            service: parent.service,
            peer: parent.service,
            choice,
            depth: parent.depth + 1,
            start: parent.start + offset,
            end: parent.start + offset + length,
            failed: false,
        };
        self.push(node);
    }

    fn push(&mut self, node: Node) {
        if node.work.hosts() {
            self.hosts.push(self.nodes.len());
        }
        self.nodes.push(node);
    }

    /// Lets some spans fail, and what failed make its cause fail.
    fn fail(&mut self) {
        for at in (0..self.nodes.len()).rev() {
            let own = self.dice.chance(5);
            let node = &mut self.nodes[at];
            node.failed |= own;
            let (failed, work) = (node.failed, node.work);
            let Some(parent) = node.parent.filter(|_| failed) else { continue };
            let spreads = match work {
                Work::Consumer => false,
                Work::Server => true,
                _ => self.dice.chance(950),
            };
            self.nodes[parent].failed |= spreads;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_follow_their_parents_and_sizes_are_exact() {
        let world = World::new(3, 20);
        let mut dice = Dice::new(3, 0);
        for size in [1, 2, 3, 8, 50, 2000] {
            let nodes = draw(&world, &mut dice, size, 1_000_000_000);
            assert_eq!(nodes.len(), size);
            for (at, node) in nodes.iter().enumerate() {
                assert!(node.end >= node.start);
                assert_eq!(node.parent.is_none(), at == 0);
                assert!(node.parent.is_none_or(|parent| parent < at));
                if node.work == Work::Server && at > 0 {
                    let client = &nodes[node.parent.unwrap()];
                    assert_eq!(client.work, Work::Client);
                    assert_eq!((client.peer, node.peer), (node.service, client.service));
                    assert!(node.start >= client.start && node.end <= client.end);
                }
            }
        }
    }

    #[test]
    fn sizes_are_skewed_as_stated() {
        let mut dice = Dice::new(11, 0);
        let mut sizes: Vec<usize> = (0..50_000).map(|_| draw_size(&mut dice)).collect();
        sizes.sort_unstable();
        let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
        assert!((18.0..22.0).contains(&mean), "{mean}");
        assert!((7..=9).contains(&sizes[25_000]));
        assert!(sizes[49_999] > 700 && sizes[49_999] <= TRACE_SPANS_MAX);
    }
}
