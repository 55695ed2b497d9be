//! What becomes of packets between nodes, and between them and the clients, which are number 0 here.
//! Node N's cable ends at the port `nN` of the bridge: what it loses, is lost there, in silence.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Mutex;

use crate::lock;

/// So many packets of 1000 from one to another are lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) per_mille: u64,
}

#[derive(Default)]
struct State {
    /// By the fault that does it.
    lost: BTreeMap<u64, Vec<Loss>>,
    slow: BTreeMap<u64, (u64, String)>,
}

pub(crate) struct Network {
    nodes: u64,
    netem: bool,
    state: Mutex<State>,
    /// What the kernel was told.
    told: tokio::sync::Mutex<BTreeMap<(u64, &'static str), String>>,
}

pub(crate) fn address(of: u64) -> String {
    format!("10.77.0.{}:7001", host(of))
}

fn host(of: u64) -> u64 {
    if of == 0 { 254 } else { of }
}

async fn tc(args: &str) -> Result<(), String> {
    // A program is one argument.
    let (words, program) = args.split_once(" bytecode ").unzip();
    let words = words.unwrap_or(args).split(' ').chain(program.map(|_| "bytecode")).chain(program);
    let run = tokio::process::Command::new("tc").args(words).output().await;
    let Output { status, stderr, .. } = run.map_err(|error| format!("tc, of iproute2: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("tc {args}: {}", String::from_utf8_lossy(&stderr).trim())) }
}

/// A filter that drops, in classic BPF: packets of IPv4 whose word at `offset` is that address.
fn program(offset: u64, losses: &[Loss], of: fn(&Loss) -> u64) -> String {
    let mut rules = Vec::new();
    for loss in losses.iter().filter(|loss| loss.per_mille > 0) {
        let address = u32::from_be_bytes([10, 77, 0, host(of(loss)) as u8]);
        rules.push(format!("32 0 0 {offset}")); // ld [offset]
        if loss.per_mille >= 1000 {
            rules.push(format!("21 0 1 {address}")); // jeq
        } else {
            rules.push(format!("21 0 3 {address}"));
            rules.push(format!("32 0 0 {}", 0xffff_f000_u32 + 56)); // ld random
            rules.push(format!("53 1 0 {}", (loss.per_mille << 32) / 1000)); // jge
        }
        rules.push("6 0 0 2".to_owned()); // ret TC_ACT_SHOT
    }
    let head = ["40 0 0 12".to_owned(), format!("21 0 {} 2048", rules.len())]; // ldh the type of the frame; jeq
    let all: Vec<String> = head.into_iter().chain(rules).chain(["6 0 0 0".to_owned()]).collect();
    format!("{},{}", all.len(), all.join(","))
}

impl Network {
    pub(crate) async fn new(nodes: u64) -> Result<Network, String> {
        for node in 1..=nodes {
            tc(&format!("qdisc add dev n{node} clsact")).await?;
        }
        let netem = tc("qdisc add dev n1 root netem delay 1ms").await.is_ok();
        if netem {
            tc("qdisc del dev n1 root").await?;
        }
        let network = Network { nodes, netem, state: Mutex::default(), told: tokio::sync::Mutex::default() };
        network.apply().await?;
        Ok(network)
    }

    pub(crate) fn has_netem(&self) -> bool {
        self.netem
    }

    /// Begins a fault.
    pub(crate) async fn lose(&self, fault: u64, losses: Vec<Loss>) -> Result<(), String> {
        lock(&self.state).lost.insert(fault, losses);
        self.apply().await
    }

    /// What comes to a node is late, and lost if it is too much.
    pub(crate) async fn slow(&self, fault: u64, node: u64, how: u64) -> Result<String, String> {
        let how = if self.netem {
            format!("netem delay {}ms {}ms loss {}%", 5 + how % 200, 1 + how % 50, how % 5)
        } else {
            format!("tbf rate {}kbit burst 16kb latency 300ms", 100 + how % 2000)
        };
        lock(&self.state).slow.insert(fault, (node, how.clone()));
        self.apply().await?;
        Ok(how)
    }

    pub(crate) async fn heal(&self, fault: u64) -> Result<(), String> {
        {
            let mut state = lock(&self.state);
            state.lost.remove(&fault);
            state.slow.remove(&fault);
        }
        self.apply().await
    }

    /// Whether all packets from one to another arrive, soon.
    pub(crate) fn is_fine(&self, from: u64, to: u64) -> bool {
        let state = lock(&self.state);
        !state.lost.values().flatten().any(|loss| (loss.from, loss.to) == (from, to))
            && !state.slow.values().any(|(node, _)| *node == to)
    }

    async fn apply(&self) -> Result<(), String> {
        let mut told = self.told.lock().await;
        for node in 1..=self.nodes {
            let (lost, slow) = {
                let state = lock(&self.state);
                let lost: Vec<Loss> = state.lost.values().flatten().copied().collect();
                (lost, state.slow.values().find(|(slow, _)| *slow == node).map(|(_, how)| how.clone()))
            };
            let from: Vec<Loss> = lost.iter().filter(|loss| loss.from == node).copied().collect();
            let to: Vec<Loss> = lost.iter().filter(|loss| (loss.from, loss.to) == (0, node)).copied().collect();
            // The words at 26 and 30 are the source and the destination.
            for (side, program) in
                [("ingress", program(30, &from, |loss| loss.to)), ("egress", program(26, &to, |loss| loss.from))]
            {
                if told.get(&(node, side)) != Some(&program) {
                    tc(&format!("filter replace dev n{node} {side} pref 1 handle 1 bpf da bytecode {program}")).await?;
                    told.insert((node, side), program);
                }
            }
            let slow = slow.unwrap_or_default();
            if told.get(&(node, "slow")).cloned().unwrap_or_default() != slow {
                match slow.is_empty() {
                    true => tc(&format!("qdisc del dev n{node} root")).await?,
                    false => tc(&format!("qdisc replace dev n{node} root {slow}")).await?,
                }
                told.insert((node, "slow"), slow);
            }
        }
        Ok(())
    }
}
