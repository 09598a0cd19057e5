/* One job on a host that several accounts share: who may call an attempt lost, and start the next one. What
   dstack/app/protocol/settlement.py and attempts.py do with the answers of app/hosts/hosts_of_claims.py.

   The coordinators of ACCOUNTS accounts take the job by create-if-absent; any of them may die. The
   host answers everybody, restarts, or, with CUTS, falls silent for a while. `retry` says `lost`. A job ends with a result
   that waits in its account's spool until a coordinator of that account brings it in.

   Promised: while the host answers, an attempt is started only when nothing lives of the one before it and no result of it
   waits, unless the machine restarted. Mutants, each of which must fail: FOREIGN_IS_SILENCE (another account's attempt on a
   host that answers is lost after a while), UNSEEN_IS_DEATH (so is one that is not seen to run), OTHER_MACHINE_IS_RESTART
   (another boot id is believed without knowing that it is the same machine). */

#ifndef ACCOUNTS
#define ACCOUNTS 2
#endif
#define A 2               /* attempts, from 1 */

byte claim[A + 1];        /* the account, from 1 */
bit ended[A + 1];         /* the record `end` */
bit lives[A + 1];         /* a process on the host */
bit waits[A + 1];         /* a result in the spool of the account */
bit earlier_boot[A + 1];  /* the machine was started again since the attempt was claimed */
byte result;              /* attempt */
bit silent;               /* nobody reaches the host */
bit was_silent;

#define may_start(n) (was_silent || n == 1 || earlier_boot[n - 1] || !(lives[n - 1] || waits[n - 1]))

inline lose(n) { atomic { if :: !ended[n] -> ended[n] = 1 :: else fi } }

/* All coordinators of one account: each step begins anew, so it does not matter which of them takes it, and who dies. */
active [ACCOUNTS] proctype Coordinators() {
  byte me = _pid + 1;
  byte n = 1;
end: do
  :: result == 0 ->
     if :: claim[1] != 0 && ended[1] -> n = 2 :: else -> n = 1 fi;
     if
     :: claim[n] == 0 ->
        atomic {
          if
          :: !silent && claim[n] == 0 && (n == 1 || ended[1]) && result == 0 ->
             assert(may_start(n));
             claim[n] = me; lives[n] = 1
          :: else
          fi
        }
     :: claim[n] != 0 && !ended[n] && silent -> lose(n)                     /* after 120 s of vain questions */
     :: claim[n] == me && !ended[n] && !silent && !lives[n] ->
        atomic { if :: waits[n] && result == 0 -> result = n :: else fi; waits[n] = 0; ended[n] = 1 }
     :: claim[n] != 0 && claim[n] != me && !ended[n] && !silent && earlier_boot[n] -> lose(n)
#ifdef FOREIGN_IS_SILENCE
     :: claim[n] != 0 && claim[n] != me && !ended[n] && !silent -> lose(n)
#endif
#ifdef UNSEEN_IS_DEATH
     :: claim[n] != 0 && claim[n] != me && !ended[n] && !silent && !lives[n] -> lose(n)
#endif
#ifdef OTHER_MACHINE_IS_RESTART
     :: claim[n] != 0 && claim[n] != me && !ended[n] -> lose(n)             /* whatever machine has answered */
#endif
     :: else
     fi
  od
}

active proctype Host() {
  bit restarted;
end: do
  :: atomic { lives[1] -> lives[1] = 0; waits[1] = 1 }                     /* the job ends well */
  :: atomic { lives[2] -> lives[2] = 0; waits[2] = 1 }
  :: atomic { lives[1] -> lives[1] = 0 }                                   /* killed, supervisor and all */
  :: atomic { !restarted -> restarted = 1; lives[1] = 0; lives[2] = 0;
       earlier_boot[1] = (claim[1] != 0); earlier_boot[2] = (claim[2] != 0) }
#ifdef CUTS
  :: atomic { silent = !silent; was_silent = 1 }
#endif
  od
}
