//! A real control plane, real Git servers and a proxy that records and injects faults.
