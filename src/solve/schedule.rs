//! The order of the work: a vertex starts when all its inputs are done, as many at once as allowed.
//!
//! ```text
//! Waiting(n) ──last input done──► Ready ──known?──► Done
//!                                   │                ▲
//!                                   └──► Running ────┤
//!                                           └────────► Failed
//! ```
//! This file knows neither ops nor caches. Steps mostly wait for processes, so each runs on a thread of its own and
//! never on rayon's pool, which is for work that burns a core. What is known already is settled on the
//! scheduler's own thread: a fully cached build starts no thread.

use crate::digest::ResultId;
use crate::plan::{BuildGraph, Role};
use petgraph::Direction;
use petgraph::graph::NodeIndex;
use petgraph::visit::EdgeRef;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;

/// The results of a vertex's inputs, by role in order.
pub(super) type Inputs = Vec<(Role, ResultId)>;

/// What the scheduler asks of whoever knows the steps.
pub(super) trait Work: Sync {
    /// What ends the whole build.
    type Error: Send;

    /// Gives the result when it is known without much work.
    fn known(&self, vertex: NodeIndex, inputs: &Inputs) -> Result<Option<ResultId>, Self::Error>;

    /// Makes the result; called on a thread of its own, for several vertices at once.
    fn make(&self, vertex: NodeIndex, inputs: &Inputs) -> Result<ResultId, Self::Error>;

    /// Ends what runs now, soon; called once, after the first failure.
    fn stop(&self);

    /// Says whether a failure is a reason to end what runs now; else it may end by itself.
    fn ends_others(&self, _error: &Self::Error) -> bool {
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting(usize),
    Ready,
    Running,
    Done(ResultId),
    Failed,
}

struct Board<'g> {
    graph: &'g BuildGraph,
    states: Vec<State>,
    ready: VecDeque<NodeIndex>,
}

impl<'g> Board<'g> {
    fn new(graph: &'g BuildGraph) -> Self {
        let mut board =
            Self { graph, states: Vec::with_capacity(graph.node_count()), ready: VecDeque::new() };
        for vertex in graph.node_indices() {
            let inputs = graph.edges_directed(vertex, Direction::Incoming).count();
            board.states.push(State::Waiting(inputs));
            if inputs == 0 {
                board.states[vertex.index()] = State::Ready;
                board.ready.push_back(vertex);
            }
        }
        board
    }

    fn inputs(&self, vertex: NodeIndex) -> Inputs {
        let mut inputs: Inputs = self
            .graph
            .edges_directed(vertex, Direction::Incoming)
            .filter_map(|edge| match self.states[edge.source().index()] {
                State::Done(result) => Some((*edge.weight(), result)),
                _ => None,
            })
            .collect();
        inputs.sort_by_key(|(role, _)| *role);
        inputs
    }

    fn done(&mut self, vertex: NodeIndex, result: ResultId) {
        self.states[vertex.index()] = State::Done(result);
        for edge in self.graph.edges_directed(vertex, Direction::Outgoing) {
            let after = edge.target();
            if let State::Waiting(n) = &mut self.states[after.index()] {
                *n -= 1;
                if *n == 0 {
                    self.states[after.index()] = State::Ready;
                    self.ready.push_back(after);
                }
            }
        }
    }
}

/// Settles every vertex of the graph with at most `jobs` running at once. After the first failure nothing new starts, what
/// runs is told to stop, and that first failure is the answer. A panic of one of them is that of this function.
pub(super) fn run<W: Work>(graph: &BuildGraph, jobs: usize, work: &W) -> Result<Vec<ResultId>, W::Error> {
    let mut board = Board::new(graph);
    let mut failure = None;
    let mut panic = None;
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let mut running = 0;
        loop {
            while failure.is_none() && panic.is_none() && running < jobs.max(1) {
                let Some(vertex) = board.ready.pop_front() else { break };
                let inputs = board.inputs(vertex);
                match work.known(vertex, &inputs) {
                    Ok(Some(result)) => board.done(vertex, result),
                    Ok(None) => {
                        board.states[vertex.index()] = State::Running;
                        running += 1;
                        let tell = tell.clone();
                        scope.spawn(move || {
                            let made = catch_unwind(AssertUnwindSafe(|| work.make(vertex, &inputs)));
                            // the receiver lives until every thread has told
                            let _ = tell.send((vertex, made));
                        });
                    }
                    Err(error) => {
                        board.states[vertex.index()] = State::Failed;
                        if work.ends_others(&error) {
                            work.stop();
                        }
                        failure = Some(error);
                    }
                }
            }
            if running == 0 {
                break;
            }
            let Ok((vertex, outcome)) = told.recv() else { break };
            running -= 1;
            match outcome {
                Ok(Ok(result)) => board.done(vertex, result),
                Err(cause) => {
                    work.stop();
                    panic = Some(cause);
                }
                Ok(Err(error)) => {
                    board.states[vertex.index()] = State::Failed;
                    if failure.is_none() {
                        if work.ends_others(&error) {
                            work.stop();
                        }
                        failure = Some(error);
                    }
                }
            }
        }
    });
    if let Some(cause) = panic {
        resume_unwind(cause);
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(board.results()),
    }
}

impl Board<'_> {
    fn results(&self) -> Vec<ResultId> {
        self.states
            .iter()
            .map(|state| match state {
                State::Done(result) => *result,
                other => unreachable!("a graph without cycles is settled, but a vertex is {other:?}"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Op, Vertex};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Barrier, Mutex};

    fn graph(nodes: usize, edges: &[(usize, usize)]) -> BuildGraph {
        let mut graph = BuildGraph::new();
        let at: Vec<_> = (0..nodes)
            .map(|n| {
                graph.add_node(Vertex { op: Op::Scratch, label: n.to_string(), lines: 0..0, no_cache: false })
            })
            .collect();
        for (from, to) in edges {
            graph.add_edge(at[*from], at[*to], Role::Base);
        }
        graph
    }

    fn id(n: usize) -> ResultId {
        ResultId([n as u8; 32])
    }

    struct Fake {
        together: Option<Barrier>,
        fail: Option<usize>,
        now: AtomicUsize,
        most: AtomicUsize,
        order: Mutex<Vec<usize>>,
        stopped: AtomicBool,
    }

    impl Fake {
        fn new() -> Self {
            Self {
                together: None,
                fail: None,
                now: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                order: Mutex::new(Vec::new()),
                stopped: AtomicBool::new(false),
            }
        }
    }

    impl Work for Fake {
        type Error = usize;
        fn known(&self, _: NodeIndex, _: &Inputs) -> Result<Option<ResultId>, usize> {
            Ok(None)
        }
        fn make(&self, vertex: NodeIndex, _: &Inputs) -> Result<ResultId, usize> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            if let Some(barrier) = &self.together {
                barrier.wait();
            }
            self.order.lock().unwrap().push(vertex.index());
            self.now.fetch_sub(1, Ordering::SeqCst);
            if self.fail == Some(vertex.index()) { Err(vertex.index()) } else { Ok(id(vertex.index())) }
        }
        fn stop(&self) {
            self.stopped.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn independent_vertices_run_at_the_same_time() {
        // the barrier opens only when all three are inside together
        let fake = Fake { together: Some(Barrier::new(3)), ..Fake::new() };
        let results = run(&graph(3, &[]), 8, &fake).unwrap();
        assert_eq!(results, [id(0), id(1), id(2)]);
    }

    /// One vertex panics, the other waits to be told to stop.
    struct Breaks(AtomicBool);

    impl Work for Breaks {
        type Error = usize;
        fn known(&self, _: NodeIndex, _: &Inputs) -> Result<Option<ResultId>, usize> {
            Ok(None)
        }
        fn make(&self, vertex: NodeIndex, _: &Inputs) -> Result<ResultId, usize> {
            assert!(vertex.index() != 0, "a fault of the step");
            while !self.0.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Err(vertex.index())
        }
        fn stop(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_panic_stops_the_others_and_comes_out() {
        let work = Breaks(AtomicBool::new(false));
        let caught = catch_unwind(AssertUnwindSafe(|| run(&graph(3, &[(0, 2)]), 8, &work)));
        let cause = caught.unwrap_err();
        assert_eq!(cause.downcast_ref::<&str>(), Some(&"a fault of the step"));
    }

    #[test]
    fn no_more_than_the_allowed_number_run() {
        let fake = Fake::new();
        run(&graph(20, &[]), 2, &fake).unwrap();
        assert!(fake.most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn inputs_come_first() {
        let fake = Fake::new();
        run(&graph(4, &[(3, 1), (1, 0), (3, 2), (2, 0)]), 8, &fake).unwrap();
        let order = fake.order.lock().unwrap();
        assert_eq!((order[0], order[3]), (3, 0));
    }

    #[test]
    fn a_failure_stops_what_follows() {
        let fake = Fake { fail: Some(1), ..Fake::new() };
        assert_eq!(run(&graph(3, &[(0, 1), (1, 2)]), 8, &fake), Err(1));
        assert!(fake.stopped.load(Ordering::SeqCst));
        assert!(!fake.order.lock().unwrap().contains(&2));
    }
}
