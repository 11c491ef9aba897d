//! How a claim learns that its lease is over, and who is told.

use super::claim::Claim;
use super::slots::End;
use crate::log::Level;
use crate::runtime::lock;

impl Claim {
    /// The lease is over for certain: verdicts from now on answer `LeaseLost`.
    pub(crate) fn lose(&self) {
        let ended = self.with_state(|state| {
            let open = state.end.is_none();
            self.finish(state, End::Lost);
            open
        });
        if ended {
            self.tell_lost(true);
        }
    }

    /// Whether its lease is held and no verdict is on its way that could end it.
    pub(crate) fn is_waiting(&self) -> bool {
        let state = lock(&self.state);
        state.end.is_none() && !state.sending
    }

    /// A renewal has failed, so the lease may be over (`certain`: it is, says the broker). Verdicts are still sent, the
    /// broker decides.
    pub(crate) fn doubt(&self, certain: bool) {
        let open = self.with_state(|state| {
            state.gone |= certain;
            state.end.is_none()
        });
        if open {
            self.tell_lost(certain);
        }
    }

    pub(super) fn tell_lost(&self, certain: bool) {
        let before = {
            let mut state = lock(&self.state);
            let before = state.told;
            state.told = Some(before.unwrap_or(false) || certain);
            before
        };
        if before >= Some(certain) {
            return;
        }
        if certain {
            self.core().stats.leases.lost.add(1);
        }
        let source = self.source();
        self.core().logger.log(
            Level::Warn,
            "consumer.lease",
            if certain {
                "the lease is lost"
            } else {
                "the lease may be lost"
            },
            &[
                ("partition", source.partition.clone().into()),
                ("leaseId", source.lease_id.clone().into()),
            ],
        );
        if let Some(on_lost) = &self.on_lost {
            on_lost(source, certain);
        }
    }
}
