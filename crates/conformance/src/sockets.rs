//! Who is connected to whom, as the kernel tells in /proc.

use std::collections::BTreeSet;
use std::fs;

/// In /proc/net/tcp: a connection that is open, and a port that is listened on.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// One line of the table.
struct Socket {
    local: String,
    remote: String,
    state: String,
    inode: String,
}

/// Connections to ports that these processes listen on, from anybody else.
pub(crate) fn callers(processes: &[u32]) -> Vec<String> {
    let own: BTreeSet<String> = processes.iter().flat_map(|process| inodes(*process)).collect();
    let table =
        |family: &str| fs::read_to_string(format!("/proc/net/{family}")).unwrap_or_default();
    let text = [table("tcp"), table("tcp6")].concat();
    strangers(&sockets(&text), &own)
}

fn strangers(sockets: &[Socket], own: &BTreeSet<String>) -> Vec<String> {
    let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
    let is_own = |socket: &&Socket| own.contains(&socket.inode);
    let listening: BTreeSet<String> = sockets
        .iter()
        .filter(|socket| socket.state == LISTEN)
        .filter(is_own)
        .map(|socket| port(&socket.local))
        .collect();
    // The other end of a connection among its own processes.
    let ends: BTreeSet<&str> =
        sockets.iter().filter(is_own).map(|socket| socket.local.as_str()).collect();
    sockets
        .iter()
        .filter(|socket| socket.state == ESTABLISHED && listening.contains(&port(&socket.local)))
        .filter(is_own)
        .filter(|socket| !ends.contains(socket.remote.as_str()))
        .map(|socket| format!("{} from {}", socket.local, socket.remote))
        .collect()
}

fn sockets(text: &str) -> Vec<Socket> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let field = |at: usize| fields.get(at).map(|field| (*field).to_owned());
        Some(Socket { local: field(1)?, remote: field(2)?, state: field(3)?, inode: field(9)? })
    };
    text.lines().filter_map(socket).collect()
}

/// The sockets that a process has open.
fn inodes(process: u32) -> Vec<String> {
    let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { return Vec::new() };
    let links = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let text = link.to_string_lossy().into_owned();
        Some(text.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strangers_at_its_own_ports_are_told() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 11 1\n\
             1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000 0 0 12 1\n\
             2: 0100007F:1F90 0100007F:C351 01 00000000:00000000 00:00000000 00000000 0 0 13 1\n\
             3: 0100007F:C351 0100007F:1F90 01 00000000:00000000 00:00000000 00000000 0 0 14 1\n\
             4: 0100007F:1F91 0100007F:C352 01 00000000:00000000 00:00000000 00000000 0 0 99 1\n";
        let own = ["11", "12", "13", "14"].map(String::from).into();
        assert_eq!(strangers(&sockets(text), &own), ["0100007F:1F90 from 0100007F:C350"]);
    }
}
