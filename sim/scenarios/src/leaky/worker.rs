use std::collections::HashMap;

use slipring_sim::Node;

/// Notes what it has in the order of a map.
pub(crate) async fn run(node: Node) {
    let squares: HashMap<u32, u32> = (0..32).map(|number| (number, number * number)).collect();
    for (number, square) in &squares {
        node.note(format_args!("{number} squared is {square}"));
    }
}
