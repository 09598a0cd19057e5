/* Claim, adopt, stop, generations and prune of one job, by create-if-absent only: what dstack/app/protocol/settlement.py, attempts.py,
   generations.py and pruning.py do. RUNS runs with one coordinator each, RIVALS further coordinators of run 0, COLLECTORS
   collectors that go over any generation ROUNDS times, and somebody who may ask run 0 to stop.

   The failure detector is adversarial: any coordinator may take any other for dead at any time. One that dies, or is
   suspended, takes no further step, which every interleaving allows at every point. Each request is one atomic step. An
   answer that was lost is the object read back, so it adds no behaviour.

   Users are found by the register of a generation, read by key to its first gap (users.py): each that registered before
   the look began is found. What lists show of pins and wants is looked at besides, and adds none.

   Mutants, each of which must fail: NO_TOMB, LATE_PIN, LATE_ENTRY, LATE_LIST (users are found by a list, which may lack
   any of them), NO_SECOND_LOOK, DATA_FIRST, LONE_WANT, BAD_COMMIT, UNASKED_HOST, START_UNSTOPPED. */

#ifndef RUNS
#define RUNS 2
#endif
#ifndef RIVALS
#define RIVALS 1
#endif
#ifndef COLLECTORS
#define COLLECTORS 1
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef G
#define G 2   /* generations */
#endif
#ifndef A
#define A 1   /* attempts in each */
#endif

#define IN 1
#define LEFT 2
#define STOPPED 255

#define D(g, n) ((g - 1) * A + (n - 1))
#define P(g, r) ((g - 1) * RUNS + (r))

/* The bucket; 0 is absent. Nothing of it but `result` and `data` needs to be deleted to see every race. */
byte result[G + 1];      /* attempt */
bit data[G * A];         /* manifest and packs of an attempt */
byte claim[G * A];       /* coordinator + 1 */
bit ended[G * A];
bit tomb[G + 1];
bit entry[G * RUNS];     /* in the register of users */
bit pin[G * RUNS];
byte want[G * RUNS];
byte outcome[RUNS];      /* the generation whose result it has, or STOPPED */
bit stop;                /* of run 0 */
bit final[RUNS];

/* The host of each attempt. `dead`: the supervisor has refused, or the job has ended. */
bit started[G * A];
bit dead[G * A];

#define create(cell, value) atomic { if :: cell == 0 -> cell = value :: else fi }
#define asked(r) (r == 0 && stop)
#define uses(r, g) (outcome[r] == g && !final[r])

inline check_unused(g) {   /* at the moment of a deletion: no run that has not ended was told that it may use it */
  i = 0;
  do
  :: i < RUNS -> assert(!uses(i, g)); i++
  :: else -> break
  od
}

proctype Coordinator(byte me; byte r) {
  byte g = 1, n, k, found;
  bit saw;

look:
  if :: outcome[r] != 0 -> goto done :: else fi;

  /* generations.first, .standing: where the run is in already; else the highest result above the highest tomb; else the
     lowest shared generation above that */
  if
  :: G == 1 || want[P(1, r)] == IN -> g = 1
  :: else ->
     if
     :: want[P(G, r)] == IN || (result[G] != 0 && !tomb[G]) -> g = G
     :: else ->
        if
        :: !tomb[1] -> g = 1
        :: else ->
           g = G;
           /* another coordinator of this run may have looked before the tomb came: agree with it first */
           if
           :: pin[P(1, r)] ->
              create(want[P(1, r)], LEFT);
              if :: want[P(1, r)] == IN -> goto look :: else fi
           :: else
           fi;
           if :: tomb[G] && want[P(G, r)] != IN -> goto gone :: else fi    /* the model has no third generation */
        fi
     fi
  fi;

  /* settling._step: the stop, the result, then generations.want: pin, look for the tomb, record what was seen */
  saw = asked(r);
  found = result[g];
  if :: saw && found == 0 -> goto stopping :: else fi;
  if
  :: want[P(g, r)] != 0 -> skip
  :: else ->
#ifdef LATE_PIN
     saw = tomb[g];
     entry[P(g, r)] = 1;
     pin[P(g, r)] = 1;
#else
#ifndef LATE_ENTRY
     entry[P(g, r)] = 1;
#endif
     pin[P(g, r)] = 1;
     saw = tomb[g];
#ifdef LATE_ENTRY
     entry[P(g, r)] = 1;
#endif
#endif
     create(want[P(g, r)], (saw -> LEFT : IN))
  fi;
#ifdef LONE_WANT
  if :: saw -> goto look :: else fi;
#else
  if :: want[P(g, r)] == LEFT -> goto look :: else fi;
#endif

  if
  :: found != 0 ->             /* settling._reuse */
     if
     :: data[D(g, found)] -> create(outcome[r], g); goto done
     :: else -> goto gone      /* a hole; the next generation, which the model does not follow */
     fi
  :: else
  fi;

  atomic {                     /* one list of the claims */
    n = 0; k = 1;
    do
    :: k <= A -> if :: claim[D(g, k)] != 0 -> n = k :: else fi; k++
    :: else -> break
    od;
    k = 0
  };
  if
  :: n != 0 && !ended[D(g, n)] ->
     if
     :: goto look                                   /* its owner lives */
     :: skip                                        /* or is taken for dead: the host is asked, and says the same for ever */
     fi;
#ifdef UNASKED_HOST
     ended[D(g, n)] = 1; goto look
#else
     atomic {
       if
       :: started[D(g, n)] -> skip
       :: else -> dead[D(g, n)] = 1
       fi
     };
     if :: started[D(g, n)] -> goto look_after :: else -> ended[D(g, n)] = 1; goto look fi
#endif
  :: else
  fi;
  if :: n == A -> goto gone :: else fi;
  if :: result[g] != 0 -> goto look :: else fi;

  n++;
  create(claim[D(g, n)], me + 1);
  if :: claim[D(g, n)] != me + 1 -> goto look :: else fi;
#ifndef START_UNSTOPPED
  saw = asked(r);
#else
  saw = 0;
#endif
  if
  :: saw || outcome[r] != 0 -> dead[D(g, n)] = 1; ended[D(g, n)] = 1; goto look
  :: else
  fi;
  atomic {                     /* go */
    if
    :: dead[D(g, n)] -> goto look
    :: else ->
       assert(outcome[r] != STOPPED);
       k = 1;
       do
       :: k <= A -> assert(k == n || !started[D(g, k)] || dead[D(g, k)]); k++
       :: else -> break
       od;
       started[D(g, n)] = 1; k = 0
    fi
  };

look_after:
  if
  :: asked(r) -> dead[D(g, n)] = 1; ended[D(g, n)] = 1; goto look
  :: dead[D(g, n)] = 1; ended[D(g, n)] = 1; goto look           /* it failed */
  :: dead[D(g, n)] = 1                                          /* it succeeded */
  fi;
#ifdef BAD_COMMIT
  found = result[g];
  data[D(g, n)] = 1;
  if :: found == 0 -> assert(result[g] == 0 || result[g] == n); result[g] = n :: else fi;
#else
  data[D(g, n)] = 1;
  create(result[g], n);
#endif
  ended[D(g, n)] = 1;
  goto look;

stopping:                      /* settling._stopped */
  atomic {
    n = 0; k = 1;
    do
    :: k <= A -> if :: claim[D(g, k)] != 0 && !ended[D(g, k)] -> n = k :: else fi; k++
    :: else -> break
    od;
    k = 0
  };
  if
  :: n != 0 ->
     atomic { if :: started[D(g, n)] -> skip :: else -> dead[D(g, n)] = 1 fi };
     if :: started[D(g, n)] -> goto look_after :: else -> ended[D(g, n)] = 1; goto look fi
  :: else
  fi;
  create(outcome[r], STOPPED);

done:
  if :: final[r] = 1 :: skip fi;        /* running._sum_up, by any coordinator of the run */
gone:
  skip
}

#define user(r, g) (entry[P(g, r)] && want[P(g, r)] != LEFT && !final[r])

inline look_for_users() {
  used = 0; i = 0;
  do
  :: i < RUNS -> if :: user(i, g) -> used = 1 :: else fi; i++
#ifdef LATE_LIST
  :: i < RUNS -> i++
#endif
  :: else -> break
  od;
  i = 0
}

proctype Collector() {
  byte g, n, i, round = 0;
  bit used;

again:
  if :: round == ROUNDS -> goto out :: else -> round++ fi;
  if :: g = 1 :: g = G fi;
  look_for_users();
  if :: used -> goto again :: else fi;
#ifndef NO_TOMB
  tomb[g] = 1;
#endif
#ifndef NO_SECOND_LOOK
  look_for_users();
  if :: used -> goto again :: else fi;
#endif
#ifdef DATA_FIRST
  atomic { n = 1; do :: n <= A -> assert(result[g] != n || !data[D(g, n)]); data[D(g, n)] = 0; n++ :: else -> break od };
#endif
  atomic { if :: result[g] != 0 -> check_unused(g) :: else fi; result[g] = 0; i = 0 };
  n = 1;
  do
  :: n <= A ->
     atomic { if :: data[D(g, n)] -> check_unused(g) :: else fi; data[D(g, n)] = 0; i = 0 };
     n++
  :: else -> break
  od;
  n = 0;
  goto again;
out:
  skip
}

proctype Stopper() { if :: stop = 1 :: skip fi }

init {
  byte i = 0;
  atomic {
#ifdef OLD_RESULT
    claim[0] = 255; started[0] = 1; dead[0] = 1; ended[0] = 1; data[0] = 1; result[1] = 1;    /* of a run that is final */
#endif
    do
    :: i < RUNS -> run Coordinator(i, i); i++
    :: i >= RUNS && i < RUNS + RIVALS -> run Coordinator(i, 0); i++
    :: else -> break
    od;
    i = 0;
    do
    :: i < COLLECTORS -> run Collector(); i++
    :: else -> break
    od;
#ifdef STOPS
    run Stopper();
#endif
    i = 0
  }
}
