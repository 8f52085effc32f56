/* Generations by name, their locks, and the usage store: what daemons and clients do to files, and everybody killed
 * at any step. Relacy follows the words in shared memory (harvest_model.cc); here are the names, the open file
 * descriptions and the transactions. A comment at each step names the function that it mirrors.
 *
 * One key stands for all, since cells and baselines know nothing of each other. A sweep is one step, and a client
 * has one thread: the models `cells` and `switch` have the rest.
 *
 * spin_test.py runs it: within several bounds, and without each of the steps below.
 */
c_decl {
    \#include <stdio.h>
    \#include <stdlib.h>
    static unsigned long happened[1000]; /* by line */
    static void print_happened(void) {
        int line;
        for (line = 0; line < 1000; ++line) {
            if (happened[line] != 0) {
                printf("happened: line %d, %lu times\n", line, happened[line]);
            }
        }
    }
    static int bound(const char *name, int unless_set) {
        const char *text = getenv(name);
        return text != 0 ? atoi(text) : unless_set;
    }
};

#define GENERATIONS 3
#define NONE 0

/* From the environment, see init. */
hidden byte clients_max;
hidden byte calls_max;        /* of each client that are counted */
hidden byte client_kills_max; /* of the first client */
hidden byte daemon_kills_max;
hidden byte failures_max; /* transactions that do not commit */
hidden byte troubles_max; /* starts with a file that cannot be opened or is not whole, or with an unfit control */
hidden byte controls_max;

/* The steps that can be left out, one at a time; steps.txt says what comes of it. */
hidden byte without;
#define WITHOUT_READ_LOCK (without == 1)
#define WITHOUT_LOOK_AFTER_LOCK (without == 2)
#define WITHOUT_LOOK_AT_NAME (without == 3)
#define WITHOUT_WRITE_LOCK (without == 4)
#define WITHOUT_LOCK_BEFORE_SUMS (without == 5)
#define WITHOUT_LOCK_HELD (without == 6)
#define WITHOUT_LAST_SUMS (without == 7)
#define WITHOUT_SUMS_BEFORE_CLOSED (without == 8)
#define WITHOUT_CLOSED_WITH_SUMS (without == 9)
#define WITHOUT_CLOSED_FOR_EVER (without == 10)
#define WITHOUT_UNLINKED_BEFORE_FORGOTTEN (without == 11)
#define WITHOUT_TABLE_UNLINKED_FIRST (without == 12)
#define WITHOUT_BASELINES_WITH_TOTALS (without == 13)
#define WITHOUT_MARKS_PUT_BACK (without == 14)
#define WITHOUT_MARKS_AT_START (without == 15)
#define WITHOUT_MARKS_OF_LATE_CELLS (without == 16)
#define WITHOUT_WAITING_FOR_CELLS (without == 17)
#define WITHOUT_WAITING_FOR_A_TABLE (without == 18)
#define WITHOUT_UNREAD_LEFT_ALONE (without == 19)
#define WITHOUT_SWITCH_FINISHED (without == 20)
#define WITHOUT_DOUBT_OF_A_NEW_CONTROL (without == 21)
#define WITHOUT_SUPERSEDED_CONTROL (without == 22)

/* What is promised. Asserted by name, so that the verifier says which one is broken. */
hidden byte what_is_closed_is_counted_in_no_more;
hidden byte names_in_use_stay; /* and those of what control names */
hidden byte totals_never_fall;
hidden byte nothing_is_counted_twice;
hidden byte nothing_is_lost;
hidden byte what_nobody_uses_goes;
#define CLAIM(name, holds) name = (holds); assert(name)
#define HAPPENS c_code { happened[__LINE__]++; } /* spin_test.py wants it at some time */

/* The directory. Numbers are never used twice, so a number stands for a file with and without its name. */
bool table_named[GENERATIONS + 1];
bool cells_named[GENERATIONS + 1];
bool write_locked[GENERATIONS + 1];
byte cell[GENERATIONS + 1]; /* the key's count */
bool marked[GENERATIONS + 1];
typedef Control {
    byte current;
    byte next;
    bool superseded
};
Control control[2];
byte named_control;

/* The usage store. */
byte total;
byte baseline[GENERATIONS + 1];
bool closed[GENERATIONS + 1];

/* What a client has open, by numbers. The first four are read locks on tables. */
mtype = { IDLE, ATTACHING, NAMED, OPENED, LOCKED, LOOKED, LOOKED_TWICE, COUNTED, ENDED };
typedef Client {
    byte locked; /* by a descriptor that is not mapped yet */
    byte generation;
    byte before; /* mapped beside it between announcement and publication */
    byte new_before;
    byte control;
    byte current_while;
    mtype step
};
Client clients[2];

/* The daemon's memory: its loop, and its flush worker. */
mtype = { REPLACING, LISTING, ADOPTING, FORGETTING, SERVING, LAST_FLUSH, LAST_HARVEST };
mtype = { WAITING, SWEPT, RAISING, CLOSING, CLOSED, HALF_UNLINKED, UNLINKED, FORGOTTEN };
#define FLUSH 0 /* a job; the others are numbers of generations to retire */
typedef Daemon {
    mtype phase;
    byte control;
    byte current;
    byte building;
    byte next;
    bool superseded[GENERATIONS + 1];
    bool unread[GENERATIONS + 1];
    bool cells_wait[GENERATIONS + 1];
    bool spoilt; /* the table of the announced generation is not whole */
    bool retiring[GENERATIONS + 1];
    bool harvested[GENERATIONS + 1];
    bool flushing;
    mtype step;
    byte job;
    bool noted[GENERATIONS + 1]; /* by the sweep under way */
    byte sums[GENERATIONS + 1]
};
Daemon daemon;
chan jobs = [3] of { byte, byte }; /* which; of a flush, the generations by bits */

byte client_kills;
byte daemon_kills;
byte failures;
byte troubles;
bool quiet; /* nothing goes wrong any more */
byte counted;
bool torn[GENERATIONS + 1]; /* has a count without a mark, of a client that was killed in between */

#define ANY(what) (what[1] || what[2] || what[3])
#define ONE(what) (what(1) || what(2) || what(3))
#define BIT(g) (1 << (g))
#define MAPS(c, g) (clients[c].generation == g || clients[c].before == g || clients[c].new_before == g)
#define MAPPED(g) (MAPS(0, g) || MAPS(1, g))
#define READ_LOCKED(g) (!WITHOUT_READ_LOCK && (MAPPED(g) || clients[0].locked == g || clients[1].locked == g))

#define ME clients[me]
#define OWN control[ME.control]
/* is_current() in client/client.h; and nothing is announced whose meters may have moved. */
#define SETTLED (ME.generation != NONE && controls_max == 1 && \
    OWN.current == ME.current_while && OWN.next == OWN.current)
/* current_or_next() in shm/attach.h */
#define CURRENT_OR_NEXT \
    (!control[named].superseded && (control[named].current == wanted || control[named].next == wanted))

inline leave_it() {
    ME.locked = NONE;
    ME.new_before = NONE;
    named = 0;
    current = NONE;
    wanted = NONE;
    after = NONE;
    ME.step = IDLE
}

inline let_go() {
    leave_it();
    ME.generation = NONE;
    ME.before = NONE;
    ME.control = 0;
    ME.current_while = NONE
}

/* The steps of a client. Killed at any of them, it is followed by another process. */
proctype client(byte me) {
    byte calls, named, current, wanted, after;
    do
    :: atomic { me == 0 && client_kills < client_kills_max ->
            printf("client %d: is killed\n", me);
            client_kills++;
            if
            :: ME.step == COUNTED -> HAPPENS; torn[ME.generation] = true
            :: else -> skip
            fi;
            let_go() }
    /* count_key() in shm/cells.h */
    :: atomic { ME.step == IDLE && calls < calls_max && ME.generation != NONE ->
            printf("client %d: counts in cells.%d\n", me, ME.generation);
            if
            :: ME.generation < OWN.current -> HAPPENS
            :: ME.generation == OWN.current -> HAPPENS
            :: ME.generation > OWN.current -> HAPPENS
            fi;
            CLAIM(what_is_closed_is_counted_in_no_more, !closed[ME.generation]);
            cell[ME.generation]++;
            counted++;
            calls++;
            ME.step = COUNTED }
    :: atomic { ME.step == COUNTED ->
            printf("client %d: marks the cell\n", me);
            marked[ME.generation] = true;
            ME.step = IDLE }
    /* attach_node() in client/mapping.cc. Where it fails, what is mapped has to do for now. */
    :: atomic { ME.step == IDLE && calls < calls_max && !SETTLED ->
            printf("client %d: maps control\n", me);
            named = named_control;
            ME.step = ATTACHING }
    :: atomic { ME.step == ATTACHING ->
            current = control[named].current;
            after = control[named].next;
            printf("client %d: reads that %d is current, %d next\n", me, current, after);
            wanted = current;
            ME.step = NAMED;
            if
            :: current == NONE -> HAPPENS; leave_it()
            :: current != NONE -> after = NONE /* Target::kCurrent */
            :: current != NONE && after > current -> skip /* Target::kNext: meters have moved */
            fi }
    /* attach_generation() in shm/attach.cc: openat() */
    :: atomic { ME.step == NAMED ->
            printf("client %d: opens table.%d, if it is there\n", me, wanted);
            if
            :: !table_named[wanted] -> HAPPENS; leave_it()
            :: table_named[wanted] -> ME.step = OPENED
            fi }
    /* F_OFD_SETLK */
    :: atomic { ME.step == OPENED ->
            printf("client %d: tries to lock table.%d\n", me, wanted);
            if
            :: write_locked[wanted] -> HAPPENS; leave_it()
            :: !write_locked[wanted] -> ME.locked = wanted; ME.step = LOCKED
            fi }
    /* current_or_next() */
    :: atomic { ME.step == LOCKED ->
            printf("client %d: looks at current and next again\n", me);
            if
            :: !(CURRENT_OR_NEXT || WITHOUT_LOOK_AFTER_LOCK) -> HAPPENS; leave_it()
            :: CURRENT_OR_NEXT || WITHOUT_LOOK_AFTER_LOCK -> ME.step = (controls_max > 1 -> LOOKED : LOOKED_TWICE)
            fi }
    /* still_named() */
    :: atomic { ME.step == LOOKED ->
            printf("client %d: looks whether control is the named one\n", me);
            if
            :: named != named_control && !WITHOUT_LOOK_AT_NAME -> HAPPENS; leave_it()
            :: named == named_control || WITHOUT_LOOK_AT_NAME -> ME.step = LOOKED_TWICE
            fi }
    /* attach_cells(); then switch_mapping() in client/mapping.cc */
    :: atomic { ME.step == LOOKED_TWICE ->
            printf("client %d: maps table.%d and cells.%d, if they are there\n", me, wanted, wanted);
            if
            :: !cells_named[wanted] -> leave_it()
            :: cells_named[wanted] && after != NONE ->
                ME.new_before = wanted;
                ME.locked = NONE;
                wanted = after;
                after = NONE;
                ME.step = NAMED
            :: cells_named[wanted] && after == NONE ->
                ME.generation = wanted;
                ME.before = ME.new_before;
                ME.control = named;
                ME.current_while = current;
                leave_it()
            fi }
    /* apikey_close() */
    :: atomic { ME.step == IDLE ->
            printf("client %d: closes\n", me);
            calls = 0;
            let_go();
            ME.step = ENDED;
            break }
    od
}

#define CONTROL control[daemon.control]
#define ANNOUNCED (CONTROL.next > CONTROL.current && !WITHOUT_SWITCH_FINISHED -> CONTROL.next : CONTROL.current)
#define LEFTOVER(g) (cells_named[g] && !table_named[g])
#define READABLE(g) (table_named[g] && !daemon.unread[g])
#define NEVER_ANNOUNCED(g) \
    (READABLE(g) && g > ANNOUNCED && (ANNOUNCED != NONE || WITHOUT_DOUBT_OF_A_NEW_CONTROL))
#define FINISHES (daemon.current != NONE && CONTROL.next > CONTROL.current)
#define METERS_WAIT ((daemon.current != NONE && daemon.cells_wait[daemon.current]) || \
    (FINISHES && daemon.cells_wait[CONTROL.current]))
/* Publisher::next_number() in daemon/core/publisher.cc */
#define TAKEN(g) (table_named[g] || CONTROL.current >= g || CONTROL.next >= g)
#define NEXT_NUMBER (TAKEN(3) -> 4 : (TAKEN(2) -> 3 : (TAKEN(1) -> 2 : 1)))
/* Flusher::all_generations() in daemon/core/flusher.cc; and those of them whose cells are open */
#define HERE(g) (daemon.superseded[g] || daemon.current == g || daemon.next == g)
#define SWEEPS(g) (HERE(g) && !daemon.cells_wait[g])
#define ALL_GENERATIONS ((SWEEPS(1) -> BIT(1) : 0) | (SWEEPS(2) -> BIT(2) : 0) | (SWEEPS(3) -> BIT(3) : 0))
#define TO_BRING(g) (SWEEPS(g) && marked[g])
#define VANISHED(g) (baseline[g] != 0 && !HERE(g) && (!ANY(daemon.unread) || WITHOUT_UNREAD_LEFT_ALONE))
#define WAITS(g) (daemon.superseded[g] && daemon.cells_wait[g])
#define RETIRES(g) (daemon.superseded[g] && !daemon.retiring[g] && \
    (!daemon.cells_wait[g] || WITHOUT_WAITING_FOR_CELLS) && \
    (!READ_LOCKED(g) || WITHOUT_WRITE_LOCK || WITHOUT_LOCK_BEFORE_SUMS))
#define HAS_LAST_SUMS(g) (cells_named[g] && !daemon.cells_wait[g] && !WITHOUT_LAST_SUMS)
#define SERVES (daemon.phase == SERVING && daemon.building == NONE)
#define FAILS (!quiet && failures < failures_max)
#define IN_TROUBLE (!quiet && troubles < troubles_max)

inline end_job() {
    for (g : 1 .. GENERATIONS) {
        daemon.noted[g] = false;
        daemon.sums[g] = 0
    }
    g = 0;
    daemon.job = 0;
    daemon.step = WAITING
}

/* The kernel drops the locks, and another daemon starts on what is left. */
inline start_again() {
    do
    :: nempty(jobs) -> jobs ? _, _
    :: empty(jobs) -> break
    od;
    for (g : 1 .. GENERATIONS) {
        daemon.superseded[g] = false;
        daemon.unread[g] = false;
        daemon.cells_wait[g] = false;
        daemon.retiring[g] = false;
        daemon.harvested[g] = false;
        write_locked[g] = false
    }
    daemon.current = NONE;
    daemon.building = NONE;
    daemon.next = NONE;
    daemon.spoilt = false;
    daemon.flushing = false;
    daemon.control = named_control;
    daemon.phase = LISTING;
    end_job()
}

/* FlushRun::add_key() in daemon/usage/usage_store.cc */
inline add(g) {
    CLAIM(totals_never_fall, daemon.sums[g] >= baseline[g]);
    total = total + daemon.sums[g] - baseline[g];
    baseline[g] = (WITHOUT_BASELINES_WITH_TOTALS -> baseline[g] : daemon.sums[g]);
    CLAIM(nothing_is_counted_twice, total <= counted)
}

inline submit_retire(g) {
    write_locked[g] = !WITHOUT_LOCK_HELD && !WITHOUT_WRITE_LOCK && !WITHOUT_LOCK_BEFORE_SUMS;
    daemon.retiring[g] = true;
    jobs ! g, 0
}

inline drop(g) {
    daemon.harvested[g] = false;
    daemon.retiring[g] = false;
    daemon.superseded[g] = false;
    write_locked[g] = false
}

/* All daemons, one after the other: the steps of the loop and of its worker, and a kill at each. */
proctype daemons() {
    byte g, generations;
    do
    :: atomic { !quiet && daemon_kills < daemon_kills_max ->
            printf("daemon: is killed\n");
            daemon_kills++;
            for (g : 1 .. GENERATIONS) {
                if
                :: closed[g] && table_named[g] -> HAPPENS
                :: closed[g] && LEFTOVER(g) -> HAPPENS
                :: closed[g] && !cells_named[g] && baseline[g] != 0 -> HAPPENS
                :: !closed[g] && LEFTOVER(g) -> HAPPENS
                :: table_named[g] && g > CONTROL.next && CONTROL.next != NONE -> HAPPENS
                :: g == CONTROL.next && g > CONTROL.current -> HAPPENS
                :: daemon.noted[g] -> HAPPENS
                :: else -> skip
                fi
            }
            start_again() }

    /* ControlWriter::open() in shm/control_writer.cc: another control is renamed over one that does not fit. */
    :: atomic { daemon.phase == LISTING && IN_TROUBLE && named_control + 1 < controls_max &&
            NEXT_NUMBER <= GENERATIONS ->
            printf("daemon: names another control\n");
            troubles++;
            named_control++;
            daemon.phase = REPLACING }
    :: atomic { daemon.phase == REPLACING ->
            printf("daemon: marks the old control as superseded\n");
            control[daemon.control].superseded = !WITHOUT_SUPERSEDED_CONTROL;
            daemon.control = named_control;
            daemon.phase = LISTING }
    /* Directory::generations() in shm/directory.cc; and the second name of what adopt() discards. */
    :: atomic { (daemon.phase == LISTING || daemon.phase == ADOPTING) && ONE(LEFTOVER) ->
            if
            :: LEFTOVER(1) -> g = 1
            :: LEFTOVER(2) -> g = 2
            :: LEFTOVER(3) -> g = 3
            fi;
            printf("daemon: unlinks cells.%d\n", g);
            cells_named[g] = false;
            g = 0 }
    /* Publisher::adopt() in daemon/core/publisher.cc */
    :: atomic { daemon.phase == LISTING && !ONE(LEFTOVER) ->
            printf("daemon: opens what it finds\n");
            daemon.phase = ADOPTING;
            if
            :: IN_TROUBLE -> /* Generation::open() in shm/generation.cc */
                troubles++;
                if
                :: table_named[1] -> g = 1
                :: table_named[2] -> g = 2
                :: table_named[3] -> g = 3
                fi;
                if
                :: true -> daemon.unread[g] = true
                :: true -> daemon.cells_wait[g] = true
                :: g == ANNOUNCED -> daemon.spoilt = true
                fi;
                g = 0
            :: true -> skip
            fi }
    :: atomic { daemon.phase == ADOPTING && ONE(NEVER_ANNOUNCED) ->
            if
            :: NEVER_ANNOUNCED(1) -> g = 1
            :: NEVER_ANNOUNCED(2) -> g = 2
            :: NEVER_ANNOUNCED(3) -> g = 3
            fi;
            CLAIM(names_in_use_stay, !MAPPED(g) && cell[g] == 0);
            printf("daemon: unlinks table.%d, which was never announced\n", g);
            daemon.cells_wait[g] = false;
            table_named[g] = false;
            g = 0 }
    :: atomic { daemon.phase == ADOPTING && !ONE(NEVER_ANNOUNCED) && !ONE(LEFTOVER) ->
            for (g : 1 .. GENERATIONS) {
                if
                :: READABLE(g) && (g != ANNOUNCED || daemon.spoilt) -> daemon.superseded[g] = true
                :: READABLE(g) && g == ANNOUNCED && !daemon.spoilt -> daemon.current = g
                :: !READABLE(g) -> skip
                fi
            }
            g = 0;
            printf("daemon: adopts %d of %d and %d\n", daemon.current, CONTROL.current, CONTROL.next);
            if
            :: !FINISHES && !METERS_WAIT -> daemon.phase = FORGETTING
            :: FINISHES && !METERS_WAIT -> HAPPENS;
                CONTROL.current = CONTROL.next;
                daemon.phase = FORGETTING
            :: METERS_WAIT -> HAPPENS;
                start_again() /* limits would begin anew: all waits for another daemon */
            fi }
    /* Flusher::forget_vanished() in daemon/core/flusher.cc */
    :: atomic { daemon.phase == FORGETTING && ONE(VANISHED) ->
            if
            :: VANISHED(1) -> g = 1
            :: VANISHED(2) -> g = 2
            :: VANISHED(3) -> g = 3
            fi;
            printf("daemon: forgets the vanished %d\n", g);
            closed[g] = true;
            baseline[g] = 0;
            g = 0 }
    /* mark_all() */
    :: atomic { daemon.phase == FORGETTING && !ONE(VANISHED) ->
            printf("daemon: marks all cells, and serves\n");
            for (g : 1 .. GENERATIONS) {
                marked[g] = marked[g] || (SWEEPS(g) && !WITHOUT_MARKS_AT_START)
            }
            g = 0;
            daemon.phase = SERVING }

    /* Publisher::finish_build(): Generation::name_files() in shm/generation.cc, then announce() */
    :: atomic { SERVES && !quiet && daemon.next == NONE && NEXT_NUMBER <= GENERATIONS ->
            daemon.building = NEXT_NUMBER;
            printf("daemon: names cells.%d\n", daemon.building);
            cells_named[daemon.building] = true }
    :: atomic { daemon.building != NONE && !table_named[daemon.building] ->
            printf("daemon: names table.%d\n", daemon.building);
            table_named[daemon.building] = true }
    :: atomic { daemon.building != NONE && table_named[daemon.building] ->
            printf("daemon: announces %d\n", daemon.building);
            CONTROL.next = daemon.building;
            daemon.next = daemon.building;
            daemon.building = NONE }
    /* Publisher::publish() */
    :: atomic { SERVES && daemon.next != NONE ->
            printf("daemon: publishes %d\n", daemon.next);
            CONTROL.current = CONTROL.next;
            if
            :: daemon.current != NONE -> daemon.superseded[daemon.current] = true
            :: else -> skip
            fi;
            daemon.current = daemon.next;
            daemon.next = NONE }
    /* Flusher::flush() */
    :: atomic { SERVES && !quiet && !daemon.flushing && ONE(TO_BRING) ->
            printf("daemon: has a flush made\n");
            daemon.flushing = true;
            jobs ! FLUSH, ALL_GENERATIONS }
    /* Flusher::retire_unused(): Publisher::open_waiting_cells(), mark_all() */
    :: atomic { SERVES && daemon.current != NONE && ONE(WAITS) ->
            printf("daemon: opens the cells that waited\n");
            for (g : 1 .. GENERATIONS) {
                marked[g] = marked[g] || (WAITS(g) && !WITHOUT_MARKS_OF_LATE_CELLS);
                daemon.cells_wait[g] = daemon.cells_wait[g] && !WAITS(g)
            }
            g = 0 }
    /* Generation::lock_unused(), retire() */
    :: atomic { (SERVES || daemon.phase == LAST_HARVEST) && ONE(RETIRES) &&
            (daemon.current != NONE || WITHOUT_WAITING_FOR_A_TABLE) ->
            if
            :: RETIRES(1) -> g = 1
            :: RETIRES(2) -> g = 2
            :: RETIRES(3) -> g = 3
            fi;
            printf("daemon: locks table.%d, which is to be harvested\n", g);
            submit_retire(g);
            g = 0 }
    /* What retire() leaves to the loop. */
    :: atomic { (SERVES || daemon.phase == LAST_HARVEST) && ANY(daemon.harvested) ->
            if
            :: daemon.harvested[1] -> g = 1
            :: daemon.harvested[2] -> g = 2
            :: daemon.harvested[3] -> g = 3
            fi;
            printf("daemon: lets go of %d\n", g);
            drop(g);
            g = 0 }

    /* The worker. Sweep::sweep_marked(), or sweep_all() of what is retired */
    :: atomic { daemon.step == WAITING && nempty(jobs) ->
            jobs ? daemon.job, generations;
            printf("daemon: sums up cells (of %d; 0: all marked ones)\n", daemon.job);
            for (g : 1 .. GENERATIONS) {
                if
                :: daemon.job == FLUSH && (generations & BIT(g)) && marked[g] ->
                    marked[g] = false;
                    daemon.noted[g] = true;
                    daemon.sums[g] = cell[g]
                :: daemon.job == g && HAS_LAST_SUMS(g) -> daemon.sums[g] = cell[g]
                :: daemon.job == g && !HAS_LAST_SUMS(g) -> daemon.sums[g] = baseline[g] /* note_cell() sees none */
                :: else -> skip
                fi
            }
            g = 0;
            generations = 0;
            daemon.step = SWEPT }
    /* UsageStore::flush() in daemon/usage/usage_store.cc */
    :: atomic { daemon.step == SWEPT && daemon.job == FLUSH ->
            printf("daemon: commits the sums\n");
            for (g : 1 .. GENERATIONS) {
                if
                :: daemon.noted[g] && (!closed[g] || WITHOUT_CLOSED_FOR_EVER) -> add(g)
                :: daemon.noted[g] && closed[g] && !WITHOUT_CLOSED_FOR_EVER -> HAPPENS
                :: else -> skip
                fi
            }
            if
            :: WITHOUT_BASELINES_WITH_TOTALS -> daemon.step = RAISING
            :: else -> daemon.flushing = false; end_job()
            fi;
            g = 0 }
    :: atomic { daemon.step == RAISING ->
            printf("daemon: raises the baselines\n");
            for (g : 1 .. GENERATIONS) {
                baseline[g] = (daemon.noted[g] -> daemon.sums[g] : baseline[g])
            }
            daemon.flushing = false;
            end_job() }
    /* flush_swept() */
    :: atomic { daemon.step == SWEPT && daemon.job == FLUSH && FAILS ->
            printf("daemon: cannot commit\n");
            failures++;
            for (g : 1 .. GENERATIONS) {
                marked[g] = marked[g] || (daemon.noted[g] && !WITHOUT_MARKS_PUT_BACK)
            }
            daemon.flushing = false;
            end_job() }
    /* The last flush of a generation, closing. */
    :: atomic { daemon.step == SWEPT && daemon.job != FLUSH ->
            printf("daemon: commits the last sums of %d, closing\n", daemon.job);
            if
            :: WITHOUT_LOCK_BEFORE_SUMS && READ_LOCKED(daemon.job) -> daemon.retiring[daemon.job] = false; end_job()
            :: !(WITHOUT_LOCK_BEFORE_SUMS && READ_LOCKED(daemon.job)) && closed[daemon.job] -> HAPPENS;
                daemon.step = CLOSED
            :: !(WITHOUT_LOCK_BEFORE_SUMS && READ_LOCKED(daemon.job)) && !closed[daemon.job] ->
                if
                :: WITHOUT_SUMS_BEFORE_CLOSED -> skip
                :: else -> add(daemon.job)
                fi;
                closed[daemon.job] = !WITHOUT_CLOSED_WITH_SUMS;
                daemon.step = (WITHOUT_SUMS_BEFORE_CLOSED || WITHOUT_CLOSED_WITH_SUMS -> CLOSING : CLOSED)
            fi }
    :: atomic { daemon.step == CLOSING ->
            printf("daemon: commits the other half\n");
            if
            :: WITHOUT_SUMS_BEFORE_CLOSED -> add(daemon.job)
            :: WITHOUT_CLOSED_WITH_SUMS -> closed[daemon.job] = true
            fi;
            daemon.step = CLOSED }
    :: atomic { daemon.step == SWEPT && daemon.job != FLUSH && FAILS ->
            printf("daemon: cannot commit\n");
            failures++;
            daemon.retiring[daemon.job] = false;
            end_job() }
    /* Generation::unlink_files() in shm/generation.cc */
    :: atomic { daemon.step == CLOSED && !WITHOUT_UNLINKED_BEFORE_FORGOTTEN || daemon.step == FORGOTTEN ->
            printf("daemon: unlinks one name of %d\n", daemon.job);
            CLAIM(names_in_use_stay,
                !MAPPED(daemon.job) && CONTROL.current != daemon.job && CONTROL.next != daemon.job);
            if
            :: WITHOUT_TABLE_UNLINKED_FIRST -> cells_named[daemon.job] = false
            :: else -> table_named[daemon.job] = false
            fi;
            daemon.step = HALF_UNLINKED }
    :: atomic { daemon.step == HALF_UNLINKED ->
            printf("daemon: unlinks the other name of %d\n", daemon.job);
            table_named[daemon.job] = false;
            cells_named[daemon.job] = false;
            daemon.step = UNLINKED }
    /* UsageStore::forget() */
    :: atomic { daemon.step == CLOSED && WITHOUT_UNLINKED_BEFORE_FORGOTTEN ->
            printf("daemon: forgets the baselines of %d\n", daemon.job);
            baseline[daemon.job] = 0;
            daemon.step = FORGOTTEN }
    :: atomic { daemon.step == UNLINKED ->
            printf("daemon: forgets the baselines of %d\n", daemon.job);
            baseline[daemon.job] = 0;
            daemon.harvested[daemon.job] = true;
            end_job() }

    /* Nobody counts any more: one more flush, then all harvests, and the store has to have it all. */
    :: atomic { SERVES && clients[0].step == ENDED && clients[1].step == ENDED && !daemon.flushing &&
            !ANY(daemon.retiring) && daemon.next == NONE && (daemon.current != NONE || ANNOUNCED != NONE) ->
            printf("daemon: brings everything\n");
            quiet = true;
            if
            :: daemon.current == NONE || ANY(daemon.unread) || ANY(daemon.cells_wait) -> start_again()
            :: else ->
                for (g : 1 .. GENERATIONS) {
                    marked[g] = marked[g] || torn[g] /* the rolling sweep comes round */
                }
                g = 0;
                daemon.flushing = true;
                jobs ! FLUSH, ALL_GENERATIONS;
                daemon.phase = LAST_FLUSH
            fi }
    :: atomic { daemon.phase == LAST_FLUSH && !daemon.flushing ->
            CLAIM(nothing_is_lost, total == counted);
            daemon.phase = LAST_HARVEST }
    :: atomic { daemon.phase == LAST_HARVEST && !ANY(daemon.superseded) ->
            for (g : 1 .. GENERATIONS) {
                CLAIM(what_nobody_uses_goes,
                    table_named[g] == (g == daemon.current) && cells_named[g] == (g == daemon.current))
            }
            CLAIM(nothing_is_lost, total == counted);
            break }
    /* Not a daemon's end: builds that a control without a generation never named have used up the numbers here. */
    :: atomic { SERVES && clients[0].step == ENDED && clients[1].step == ENDED && daemon.current == NONE &&
            ANNOUNCED == NONE && NEXT_NUMBER > GENERATIONS -> break }
    od
}

init {
    byte g;
    atomic {
        c_code {
            clients_max = bound("CLIENTS", 1);
            calls_max = bound("CALLS", 2);
            client_kills_max = bound("CLIENT_KILLS", 1);
            daemon_kills_max = bound("DAEMON_KILLS", 2);
            failures_max = bound("FAILURES", 1);
            troubles_max = bound("TROUBLES", 1);
            controls_max = bound("CONTROLS", 1);
            without = bound("WITHOUT", 0);
            atexit(print_happened);
        };
        table_named[1] = true;
        cells_named[1] = true;
        control[0].current = 1;
        control[0].next = 1;
        clients[0].step = IDLE;
        clients[1].step = (clients_max > 1 -> IDLE : ENDED);
        start_again();
        run daemons();
        run client(0);
        if
        :: clients_max > 1 -> run client(1)
        :: else -> skip
        fi
    }
}
