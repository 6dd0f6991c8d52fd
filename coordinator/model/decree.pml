/*
 * decree's protocol, for Spin. README.md beside this file maps every step to the
 * code and says what is left out; scripts/model.sh runs it.
 *
 * One transaction with two branches, and TERMS leaders, one after the other. A
 * leader that was replaced keeps running, with its epoch, until it notices. Raft is
 * a log that applies one command at a time (README, "Raft as an atomic log").
 *
 * The network is a set: what a leader has once sent may arrive at any time from
 * then on, again and again, in any order, or never. That is delay, duplication,
 * reordering and loss in one.
 *
 * Every step of somebody's is one option of the loop at the end, and one transition.
 * Luck, such as an answer that gets lost, is another option.
 *
 * The BUG_ switches break one rule each; scripts/model.sh wants an error from each.
 */

#ifndef TERMS
#define TERMS 3
#endif

/* How many contents clients submit under the one txid: 1, or 2. */
#ifndef CONTENTS
#define CONTENTS 1
#endif

/* Whether the participants can list what they hold prepared (Recovers). */
#ifndef RECOVERS
#define RECOVERS 1
#endif

/* Whether an operator ends prepared branches by hand (rule R9). */
#ifndef MEDDLING
#define MEDDLING 0
#endif

/* Whether a leader may go on after its staging was certainly not written. */
#ifndef BOUNCES
#define BOUNCES 1
#endif

/* Whether a commit that nobody waits for is kept where it will do nothing, since in the
   log it precedes any other staging of its leader's, and another leader's comes with an
   epoch that refuses it. It adds no behaviour: it may as well be applied at once. */
#ifndef STRAYS
#define STRAYS 1
#endif

/* Whether leaders end. It adds no behaviour: one that has ended is one that takes no
   step any more. */
#ifndef FALLS
#define FALLS 1
#endif

/* One transition a step. Spin marks what it never reached inside atomic only, so
   that scripts/model.sh looks for dead lines with COVER; the states are the same. */
#ifdef COVER
#define STEP atomic
#else
#define STEP d_step
#endif

/* Sets of branches, and of contents, are bit masks; branches are 1 and 2, which are
   their own bits. */
#define BOTH 3
#define other(b) (BOTH ^ (b))

/* txn.State; TOMB is the abort of a transaction whose branches nobody knows. */
#define UNKNOWN    0
#define PREPARING  1
#define COMMITTING 2
#define ABORTING   3
#define COMMITTED  4
#define ABORTED    5
#define TOMB       6

/* txn.Decision */
#define UNDECIDED 0
#define COMMIT    1
#define ABORT     2

/* participants.Status; StatusUnknown is UNKNOWN. */
#define PREPARED 1
#define DONE     2 /* committed */
#define UNDONE   3 /* aborted; where nothing was prepared before, a tombstone */

/* participants.Vote */
#define YES      1
#define READONLY 2
#define NO       3

/* What a term is. */
#define BEFORE  0
#define LEADING 1 /* as it believes: a younger leader may have replaced it */
#define OVER    2

/* Where a term's drive of the transaction stands (coordinator/drive.go). */
#define IDLE       0 /* there is no drive */
#define STAGING    1 /* admitted; the staging entry is on its way */
#define VOTING     2 /* staged; votes are being gathered */
#define DECIDING   3 /* the decision is on its way */
#define DELIVERING 4 /* decided */
#define HALTED     5 /* what became of a proposal is not known (rule R5) */
#define CLEANING   6 /* an abort that brings its branches is on its way (rule R4) */

/* The proposal that a term has on its way through the log. */
#define NOTHING         0
#define STAGE           1
#define DECIDE_COMMIT   2
#define DECIDE_ABORT    3
#define DECIDE_BRANCHES 4 /* an abort with txn.Decide.Branches */

/* Where a commit stands that followed its staging into the log (rule R4): the two are
   on their way at once, and the log takes and answers them in their order. */
#define FOLLOWS 1 /* its staging is before it */
#define NEXT    2 /* it comes before any proposal; the drive waits for its answer */
#define STRAY   3 /* the same, and nobody waits for it any more */

/* ---- the replicated state (fsm) ---- */

unsigned epoch : 2;
unsigned state : 3;
unsigned content : 1;  /* the fingerprint, from staging on */
unsigned readonly : 2; /* branches that the decision leaves out of phase two */
unsigned receipts : 2;
unsigned damage : 2;   /* receipts that are heuristics */

/* ---- what only the assertions look at ---- */

unsigned fate : 2; /* the first decision */
#ifdef TOLD
unsigned told : 2; /* the first outcome that a client learnt */
#else
#define told UNDECIDED
#endif

/* ---- the volatile state of a term, and what it ever sent ---- */

typedef Term {
	unsigned mode : 2;
	unsigned drive : 3;
	unsigned content : 1;   /* of the drive, and of its proposal */
	unsigned left : 1;      /* prepares left before staging was applied */
	unsigned withdrawn : 1; /* Ballot: there is a reason to abort */
	unsigned yes : 2;       /* Ballot: branches that voted commit */
	unsigned looked : 2;    /* Ballot: branches that voted read-only */
	unsigned proposal : 3;
	unsigned leftout : 2;   /* Decide.ReadOnly of the proposal */
	unsigned behind : 2;    /* where a commit is that followed its staging, if any */
	unsigned omitted : 2;   /* Decide.ReadOnly of that commit */
#ifdef BUG_ABORT_BEFORE_STAGING
	unsigned undo : 1;      /* what followed is an abort */
#endif
	unsigned heard : 2;     /* receipts that are not logged yet */
	unsigned harm : 2;      /* those of them that are heuristics */
	unsigned suspects : 2;  /* orphans that the scan is about to end */
	unsigned prepares : 2;  /* the network, by content */
	unsigned commits : 2;   /* the network, by branch */
	unsigned aborts : 2
}
Term t[TERMS + 1];

/* ---- a participant's books (participants.Record, participants.Fence) ---- */

typedef Participant {
	unsigned record : 2;
	unsigned content : 1; /* Record.Digest */
	unsigned fence : 2;
	unsigned reads : 2;   /* the contents of which its branch only reads */
	unsigned soft : 1     /* BUG_VOLATILE_YES: prepared, in memory only */
}
Participant p[3];

bit calm; /* faults are over: the leader stays, and what is sent arrives */
unsigned answer : 2; /* a participant's, within a step: a vote, or whether it tells of harm */

#define decided (state >= COMMITTING)
#define finished (state >= COMMITTED)
#define owed (BOTH ^ (readonly | receipts))

/* ---- what must hold ---- */

/* Rule R1: the first decision stands, and agrees with what was told. */
inline decide(outcome) {
	assert(fate == UNDECIDED || fate == outcome);
	assert(told == UNDECIDED || told == outcome);
	fate = outcome
}

/* A client learns the outcome, which is applied (rule R2); since decisions stand, so
   does the answer. A bug that breaks R2 is let go on with TOLD, to see what becomes
   of what the client knows. */
inline tell(outcome) {
#ifdef TOLD
	assert(fate == UNDECIDED || fate == outcome);
	assert(told == UNDECIDED || told == outcome);
	told = outcome
#else
	assert(fate == outcome)
#endif
}

#define carried_out(b) ((readonly & (b)) || p[b].record == DONE)
#define undone(b) (p[b].record == UNKNOWN || p[b].record == UNDONE)

/* A client learns that every branch has acknowledged. */
inline tell_delivered() {
	assert(fate != COMMIT || (carried_out(1) || (damage & 1)) && (carried_out(2) || (damage & 2)));
	assert(fate != ABORT || (undone(1) || (damage & 1)) && (undone(2) || (damage & 2)))
}

/* Nobody commits without the decision, or other content than was decided, or beside
   somebody who aborts, unless an operator meddled. */
inline agree(b) {
	assert(MEDDLING || p[b].record != DONE || fate == COMMIT && p[b].content == content);
	assert(MEDDLING || p[b].record != DONE || p[other(b)].record != UNDONE || (readonly & other(b)));
	assert(MEDDLING || p[b].record != UNDONE || p[other(b)].record != DONE || (readonly & b))
}

/* Nothing is left to do: every branch has ended, and as decided. NO_END leaves that
   aside, for bugs that are to be seen doing worse. */
inline at_rest() {
#ifndef NO_END
	assert(calm);
	assert(state == UNKNOWN || finished);
	assert(told == UNDECIDED || told == fate);
	assert(p[1].record != PREPARED && p[2].record != PREPARED);
	assert(fate == COMMIT || (undone(1) || (damage & 1)) && (undone(2) || (damage & 2)) ||
		MEDDLING && (fate == UNDECIDED || state == TOMB)); /* nobody asks for what no branch is known of */
	assert(fate != COMMIT || (carried_out(1) || (damage & 1)) && (carried_out(2) || (damage & 2)))
#else
	skip
#endif
}

/* ---- the state machine: fsm/txn/step.go ---- */

inline settle() {
	if
	:: state == COMMITTING && owed == 0 -> state = COMMITTED
	:: state == ABORTING && owed == 0 -> state = ABORTED
	:: else
	fi
}

inline step_stage(print) {
	if
	:: state == UNKNOWN -> state = PREPARING; content = print
#ifdef BUG_RERUN
	:: finished -> state = PREPARING; content = print; receipts = 0; readonly = 0
#endif
	:: else
	fi
}

inline step_commit(ro) {
	if
	:: state == PREPARING ->
		decide(COMMIT);
		state = COMMITTING;
		readonly = ro;
		settle()
#ifdef BUG_SECOND_DECISION
	:: decided -> decide(COMMIT); state = COMMITTING
#endif
#if defined(BUG_NO_STAGING) || defined(BUG_COMMIT_UNSTAGED)
	:: state == UNKNOWN -> decide(COMMIT); state = COMMITTED; readonly = ro
#endif
	:: else
	fi
}

inline step_abort() {
	if
	:: state == PREPARING -> decide(ABORT); state = ABORTING
#ifdef BUG_SECOND_DECISION
	:: decided -> decide(ABORT); state = ABORTING
#endif
#if defined(BUG_NO_STAGING) || defined(BUG_ABORT_BEFORE_STAGING)
	:: state == UNKNOWN -> decide(ABORT); state = TOMB
#endif
	:: else
	fi
}

/* Prepares have left to these branches; with staging refused, only this command
   knows of them (rule R4). */
inline step_branches() {
	if
	:: state == UNKNOWN || state == TOMB -> decide(ABORT); state = ABORTING
	:: else
	fi
}

inline step_presume() {
	if
	:: state == UNKNOWN -> decide(ABORT); state = TOMB
	:: else
	fi
}

inline step_receipts(who, heuristic) {
	damage = damage | (heuristic & owed);
	receipts = receipts | (who & owed);
#ifdef BUG_FORGET
	state = UNKNOWN; receipts = 0; readonly = 0
#else
	settle()
#endif
}

/* ---- the network, and the participants' fences (rule R8) ---- */

/* The branches that a message of this epoch can reach. What they refuse, they refuse
   for ever, so that it need not be kept. */
#ifdef BUG_NO_FENCE
#define reach(e) BOTH
#else
#define reach(e) ((p[1].fence <= e) | (p[2].fence <= e) << 1)
#endif

inline send_prepares(e, print) {
	t[e].prepares = t[e].prepares | (reach(e) -> 1 << print : 0)
}
#define send_commits(e, who) t[e].commits = t[e].commits | (who) & reach(e)
#define send_aborts(e, who)  t[e].aborts = t[e].aborts | (who) & reach(e)

inline lose_refused(e) {
	t[e].commits = t[e].commits & reach(e);
	t[e].aborts = t[e].aborts & reach(e);
	t[e].prepares = (reach(e) -> t[e].prepares : 0)
}

/* Branch b hears of an epoch: Fence.Admit. */
inline raise_fence(e, b) {
	if
	:: p[b].fence < e ->
		p[b].fence = e;
#if TERMS > 1
		lose_refused(1);
#endif
#if TERMS > 2
		lose_refused(2);
#endif
		skip
	:: else
	fi
}

/* ---- a drive: coordinator/drive.go, fsm/txn/ballot.go ---- */

inline close_ballot(e) {
	t[e].withdrawn = 0; t[e].yes = 0; t[e].looked = 0
}

/* Nobody waits any more for the commit that is next. */
#define may_matter(e) (STRAYS || state == PREPARING && epoch == e)
inline stray(e) {
	if
	:: t[e].behind == NEXT && may_matter(e) -> t[e].behind = STRAY
#if !STRAYS
	:: t[e].behind == NEXT && !may_matter(e) -> t[e].behind = 0; t[e].omitted = 0
#endif
	:: else
	fi
}

inline release(e) {
	close_ballot(e);
	stray(e);
	t[e].left = 0;
	t[e].heard = 0; t[e].harm = 0;
	t[e].content = (t[e].proposal == STAGE -> t[e].content : 0);
	t[e].drive = IDLE
}

inline propose(e, what) {
	close_ballot(e);
	t[e].proposal = what;
	t[e].drive = DECIDING
}

/* The commit follows the staging into the log. */
inline follow(e) {
#ifdef BUG_ABORT_BEFORE_STAGING
	t[e].undo = t[e].withdrawn;
#endif
	t[e].omitted = t[e].looked;
	close_ballot(e);
	t[e].behind = FOLLOWS
}

#ifdef BUG_COMMIT_EARLY
#define complete(e) (t[e].yes || t[e].looked)
#else
#define complete(e) ((t[e].yes | t[e].looked) == BOTH)
#endif

/* Proposes what the ballot allows, Ballot.Verdict: an abort once staging is applied, a
   commit also while it is on its way. */
inline consider(e) {
	if
	:: t[e].withdrawn && t[e].drive == VOTING ->
#ifdef BUG_ABORT_UNLOGGED
		send_aborts(e, BOTH);
		tell(ABORT);
		release(e)
#else
		propose(e, DECIDE_ABORT)
#endif
	:: !t[e].withdrawn && complete(e) ->
#ifdef BUG_SEND_BEFORE_APPLY
		send_commits(e, BOTH ^ t[e].looked);
#endif
#ifdef BUG_TELL_BEFORE_APPLY
		tell(COMMIT);
#endif
#ifdef BUG_READONLY_UNDECIDED
		if
		:: t[e].looked == BOTH -> tell(COMMIT)
		:: else
		fi;
#endif
		if
		:: t[e].drive == STAGING -> follow(e)
		:: else -> t[e].leftout = t[e].looked; propose(e, DECIDE_COMMIT)
		fi
#ifdef BUG_ABORT_BEFORE_STAGING
	:: t[e].withdrawn && t[e].drive == STAGING -> follow(e)
#endif
	:: else
	fi
}

/* Takes over the applied state, and sends what is owed to it: txn.Pending. */
inline advance(e) {
	t[e].left = 0;
	if
	:: state == PREPARING && t[e].behind == NEXT ->
		t[e].drive = DECIDING
	:: state == PREPARING && t[e].behind != NEXT ->
		t[e].drive = VOTING;
		t[e].content = content;
		send_prepares(e, content);
		consider(e)
	:: state == COMMITTING ->
		tell(COMMIT);
		close_ballot(e);
		t[e].drive = DELIVERING;
		send_commits(e, owed)
	:: state == ABORTING ->
		tell(ABORT);
		close_ballot(e);
		t[e].drive = DELIVERING;
		send_aborts(e, owed)
	:: finished ->
		tell((state == COMMITTED -> COMMIT : ABORT));
		if
		:: state != TOMB -> tell_delivered()
		:: else
		fi;
		release(e)
	fi
}

/* Staging met a tombstone, or certainly failed, after prepares had left: their abort
   is logged, and brings the branches along (rule R4). */
inline clean_up(e) {
	close_ballot(e);
	stray(e);
	t[e].left = 1;
#ifdef BUG_NO_CLEANUP
	release(e)
#else
	t[e].proposal = DECIDE_BRANCHES;
	t[e].drive = CLEANING
#endif
}

/* What becomes of the proposal is not known: the drive stops, and says nothing to
   anybody (rule R5). */
inline halt(e) {
	printf("leader %d: the outcome of its proposal is unknown\n", e);
#ifdef BUG_UNKNOWN_IS_FAILURE
	tell(ABORT);
#endif
#ifdef BUG_UNKNOWN_ABORTS
	send_aborts(e, BOTH);
#endif
	close_ballot(e);
	stray(e);
	t[e].heard = 0; t[e].harm = 0;
	t[e].drive = HALTED
}

/* ---- what a leader does ---- */

/* It is elected, passes a barrier, opens its epoch (rule R3), and takes over what is
   unfinished (rule R13). */
#define may_open(e) (!calm && t[e].mode == BEFORE && epoch == e - 1)
inline open(e) {
	printf("leader %d: opens its epoch\n", e);
#ifndef BUG_NO_BARRIER
	epoch = e;
#endif
	t[e].mode = LEADING;
	if
#ifndef BUG_NO_TAKEOVER
	:: state != UNKNOWN && !finished -> advance(e)
#endif
	:: else
	fi
}

/* BUG_NO_BARRIER: it led before the log had told it all. */
#define may_open_late(e) (t[e].mode == LEADING && epoch == e - 1)
inline open_late(e) {
	printf("leader %d: its epoch entry is applied\n", e);
	epoch = e
}

/* A client submits, for the first time or again: term.admit. early: prepares leave
   before staging is applied. */
#define may_submit(e, c) (!calm && t[e].mode == LEADING && t[e].drive == IDLE && (state != UNKNOWN || c < CONTENTS))
#ifdef BUG_EARLY_UNLISTED
#define may_leave_early 1
#else
#define may_leave_early RECOVERS
#endif
inline submit(e, c, early) {
	printf("leader %d: a client submits content %d, prepares leave early: %d\n", e, c, early);
	if
#ifdef BUG_RERUN
	:: state == UNKNOWN || finished ->
#else
	:: state == UNKNOWN ->
#endif
		t[e].content = c;
#ifdef BUG_NO_STAGING
		t[e].drive = VOTING;
		send_prepares(e, c)
#else
		t[e].proposal = STAGE;
		t[e].drive = STAGING;
		t[e].left = early;
		if
		:: early -> send_prepares(e, c)
		:: else
		fi
#endif
	:: else ->
		if
		:: state == ABORTING || state == ABORTED || state == TOMB || c == content -> advance(e)
		:: else /* refused: the txid was used with other content (rule R11) */
		fi
	fi
}

/* A client asks, behind a barrier, or aborts: of what is not known yet, a tombstone
   is written, then the client is answered (rule R6). */
#define may_ask(e) (!calm && t[e].mode == LEADING && epoch == e && state == UNKNOWN)
inline ask(e) {
	printf("leader %d: a client asks, and is told that the transaction is aborted\n", e);
#ifndef BUG_INQUIRY_UNLOGGED
	step_presume();
#endif
	tell(ABORT)
}

/* The log applies the proposal; or the state machine refuses it, because its epoch
   is over (rule R3). */
#ifdef BUG_NO_EPOCH
#define admitted(e) 1
#else
#define admitted(e) (epoch == e)
#endif
#ifdef BUG_OVERTAKEN
#define ahead(e) 0
#else
#define ahead(e) (t[e].behind == NEXT || t[e].behind == STRAY)
#endif
#define deaf(e) (t[e].mode == OVER || t[e].drive == HALTED || t[e].drive == IDLE)
#define may_apply(e) (t[e].proposal != NOTHING && !ahead(e) && epoch >= e)
inline apply(e) {
	printf("log: proposal %d of leader %d is applied, or refused if epoch %d is not its own\n", t[e].proposal, e, epoch);
	if
	:: admitted(e) ->
		if
		:: t[e].proposal == STAGE ->
			step_stage(t[e].content);
			t[e].behind = (t[e].behind == FOLLOWS -> NEXT : t[e].behind)
		:: t[e].proposal == DECIDE_COMMIT -> step_commit(t[e].leftout)
		:: t[e].proposal == DECIDE_ABORT -> step_abort()
		:: t[e].proposal == DECIDE_BRANCHES -> step_branches()
		fi;
		t[e].proposal = NOTHING; t[e].leftout = 0;
		if
		:: deaf(e) -> stray(e)
		:: !deaf(e) && t[e].drive == STAGING && state == TOMB && t[e].left -> clean_up(e)
		:: else -> advance(e)
		fi
	:: else ->
		t[e].proposal = NOTHING; t[e].leftout = 0;
		t[e].behind = 0; t[e].omitted = 0; /* it is refused, too */
		if
		:: deaf(e)
		:: !deaf(e) && t[e].drive == STAGING -> release(e)
		:: else -> halt(e)
		fi
	fi
}

/* The log applies a commit that followed its staging, or refuses it. Where staging came
   to nothing, so does the commit: the state machine knows nothing to commit, and a drive
   that cleans up, or began anew, takes no notice (Drive.written). */
#define may_apply_behind(e) ((t[e].behind == NEXT || t[e].behind == STRAY) && epoch >= e)
inline apply_behind(e) {
	printf("log: what followed the staging of leader %d is applied to state %d, or refused if epoch %d is not its own\n", e, state, epoch);
	if
	:: admitted(e) ->
#ifdef BUG_ABORT_BEFORE_STAGING
		if
		:: t[e].undo -> step_abort()
		:: else -> step_commit(t[e].omitted)
		fi;
		t[e].undo = 0;
		if
		:: t[e].drive == CLEANING -> release(e) /* the tombstone answers for its abort */
		:: else
		fi;
#else
		step_commit(t[e].omitted);
#endif
		if
		:: t[e].behind == NEXT -> t[e].behind = 0; advance(e)
		:: else
		fi
	:: else ->
		if
		:: t[e].behind == NEXT -> halt(e)
		:: else
		fi
	fi;
	t[e].behind = 0; t[e].omitted = 0
}

/* Raft certainly does not take the proposal, although the node leads on: its queue is
   full, or a transfer of leadership is being given up. What follows it may be taken. */
#define may_bounce(e) (BOUNCES && !calm && t[e].mode == LEADING && t[e].drive == STAGING)
inline bounce(e) {
	printf("leader %d: its staging entry was certainly not written\n", e);
	t[e].proposal = NOTHING;
	t[e].behind = (t[e].behind == FOLLOWS -> NEXT : t[e].behind);
	release(e)
}

/* The proposal ends in an error that says nothing: it may have been applied, or may
   yet be, or never will. */
#define may_lose(e) (!calm && t[e].mode == LEADING && \
	(t[e].drive == STAGING || t[e].drive == DECIDING || t[e].drive == CLEANING || t[e].drive == DELIVERING && t[e].heard))

/* A halted drive's barrier passes, which it does only in this leader's epoch: the
   proposal is applied by now or never will be. term.settle. A commit that followed it
   may have waited beside the barrier, and be kept for later. */
#define may_settle(e) (t[e].drive == HALTED && epoch == e)
inline resume(e, kept) {
	printf("leader %d: goes on behind a barrier, a commit is still to come: %d\n", e, kept);
	t[e].proposal = NOTHING; t[e].leftout = 0;
	t[e].behind = (kept -> STRAY : 0);
	t[e].omitted = (kept -> t[e].omitted : 0);
	if
	:: t[e].left && (state == UNKNOWN || state == TOMB) -> clean_up(e)
	:: state != UNKNOWN && !finished -> advance(e)
	:: else -> release(e)
	fi
}

/* Time is up, or the answer to a prepare is ambiguous, or the client aborts. */
#define may_withdraw(e) ((t[e].drive == STAGING && !t[e].behind || t[e].drive == VOTING) && !t[e].withdrawn)
inline withdraw(e) {
	printf("leader %d: time is up, or an answer was ambiguous\n", e);
	close_ballot(e);
	t[e].withdrawn = 1;
	consider(e)
}

/* It crashes, or notices that it was replaced. */
#define may_fall(e) (!calm && t[e].mode == LEADING)
inline fall(e) {
	printf("leader %d: is no more\n", e);
	release(e);
	t[e].suspects = 0;
	t[e].mode = OVER
}

/* The orphan scan finds a prepared branch that nobody drives here, in both of its
   lists, with a barrier between them (coordinator/orphans.go). */
#ifdef BUG_NO_SCAN
#define scans 0
#else
#define scans RECOVERS
#endif
#define may_scan(e, b) (scans && t[e].mode == LEADING && epoch == e && p[b].record == PREPARED && !(t[e].suspects & b) && \
	t[e].drive == IDLE && (state == UNKNOWN || finished) && (!calm || !((t[e].aborts | t[e].commits) & b)))
inline scan(e, b) {
	printf("leader %d: its scan finds branch %d prepared\n", e, b);
	t[e].suspects = t[e].suspects | b
}

/* The scan ends the orphan as its transaction was decided, after writing the
   presumed abort of one that the log does not know (rule R6). */
#define may_end(e, b) (t[e].suspects & b)
/* A branch that voted read-only left nothing that could be committed: what is
   prepared there is another content's. */
#ifdef BUG_ORPHAN_READONLY
#define commits_orphan(b) 1
#else
#define commits_orphan(b) (!(readonly & b))
#endif
inline end_orphan(e, b) {
	printf("leader %d: its scan ends branch %d\n", e, b);
	t[e].suspects = t[e].suspects & other(b);
	if
#ifdef BUG_SCAN_UNLOGGED
	:: state == UNKNOWN && epoch == e -> send_aborts(e, b)
#else
	:: state == UNKNOWN && epoch == e -> step_presume()
#endif
	:: else
	fi;
	if
	:: decided && fate == ABORT -> send_aborts(e, b)
#if defined(BUG_NO_STAGING) || defined(BUG_COMMIT_UNSTAGED)
	:: decided && fate == COMMIT -> send_aborts(e, b) /* the log names no such branch */
#else
	:: decided && fate == COMMIT && commits_orphan(b) -> send_commits(e, b)
	:: finished && fate == COMMIT && !commits_orphan(b) -> send_aborts(e, b)
#endif
	:: else
	fi
}

/* Receipts are logged: coordinator/receipts.go. */
#define may_log(e) (t[e].mode == LEADING && t[e].drive == DELIVERING && admitted(e) && (t[e].heard & owed))
inline log_receipts(e) {
	printf("log: receipts %d of leader %d\n", t[e].heard, e);
	step_receipts(t[e].heard, t[e].harm);
	t[e].heard = 0; t[e].harm = 0;
	if
	:: finished -> advance(e)
#ifdef BUG_FORGET
	:: state == UNKNOWN -> release(e)
#endif
	:: else
	fi
}

/* ---- what a participant does: participants/record.go ---- */

/* The leader waits for the branch's vote, or for its receipt. With all votes in it has
   proposed the commit. A commit of an earlier drive's that is still ahead of the staging
   does nothing, so that the votes may as well come after it. */
#define votes_early(e) (t[e].drive == STAGING && t[e].left && !t[e].behind)
#define listens(e, b) ((votes_early(e) || t[e].drive == VOTING) && !t[e].withdrawn && !((t[e].yes | t[e].looked) & b))
#define hears(e, b, c) (listens(e, b) && t[e].content == c)
#define awaits(e, b) (t[e].drive == DELIVERING && (owed & b) && !(t[e].heard & b))

/* Record.Prepare; a new branch is willing, or votes no. */
#define may_prepare(e, b, c) ((t[e].prepares & (1 << c)) && (reach(e) & b) && \
	(hears(e, b, c) || !calm && (p[b].record == UNKNOWN || p[b].fence < e)))
#define may_lose_vote(e, b, c) (!calm && hears(e, b, c) && (p[b].record == UNKNOWN || p[b].fence < e))
inline prepare(e, b, c, willing) {
	raise_fence(e, b);
	if
	:: p[b].record == UNKNOWN ->
		if
		:: !willing -> p[b].record = UNDONE; answer = NO
		:: willing && (p[b].reads & (1 << c)) ->
			answer = READONLY;
#ifdef BUG_READONLY_TURNS
			p[b].reads = 0 /* asked again, it has something to write */
#endif
		:: willing && !(p[b].reads & (1 << c)) ->
			p[b].record = PREPARED; p[b].content = c; answer = YES;
#ifdef BUG_VOLATILE_YES
			p[b].soft = 1
#endif
		fi
	:: p[b].record == UNDONE -> answer = NO
#ifdef BUG_NO_DIGEST
	:: p[b].record == PREPARED || p[b].record == DONE -> answer = YES
#else
	:: p[b].record == PREPARED || p[b].record == DONE -> answer = (p[b].content == c -> YES : NO)
#endif
	fi;
	printf("branch %d: prepare of leader %d, content %d: vote %d\n", b, e, c, answer);
	agree(b)
}

/* The vote reaches the drive that asked. */
inline hear_vote(e, b, c) {
	if
	:: hears(e, b, c) ->
		if
		:: answer == YES -> t[e].yes = t[e].yes | b
		:: answer == READONLY -> t[e].looked = t[e].looked | b
		:: answer == NO -> close_ballot(e); t[e].withdrawn = 1
		fi;
		consider(e)
	:: else
	fi
}

/* Record.Commit. */
#define may_commit(e, b) ((t[e].commits & b) && (reach(e) & b) && (awaits(e, b) || p[b].record == PREPARED || !calm && (p[b].record != DONE || p[b].fence < e)))
inline commit(e, b) {
	raise_fence(e, b);
	printf("branch %d: commit of leader %d finds record %d\n", b, e, p[b].record);
	if
	:: p[b].record == PREPARED || p[b].record == DONE -> p[b].record = DONE; answer = 0
	:: else ->
		assert(MEDDLING); /* damage, where nobody meddled */
		p[b].record = UNDONE;
#ifdef BUG_NOT_FOUND_IS_DONE
		answer = 0
#else
		answer = 1
#endif
	fi;
	agree(b)
}

/* Record.Abort. */
#define may_abort(e, b) ((t[e].aborts & b) && (reach(e) & b) && (awaits(e, b) || p[b].record == PREPARED || !calm && (p[b].record != UNDONE || p[b].fence < e)))
#define may_lose_receipt(e, b, end) (!calm && awaits(e, b) && (p[b].record != end || p[b].fence < e))
inline abort(e, b) {
	raise_fence(e, b);
	printf("branch %d: abort of leader %d finds record %d\n", b, e, p[b].record);
	if
	:: p[b].record == DONE ->
		assert(MEDDLING);
		answer = 1
	:: else ->
#ifdef BUG_NO_TOMBSTONE
		p[b].record = (p[b].record == UNKNOWN -> UNKNOWN : UNDONE);
#else
		p[b].record = UNDONE;
#endif
		answer = 0
	fi;
	agree(b)
}

/* The receipt reaches the leader. */
inline hear_receipt(e, b) {
	if
	:: awaits(e, b) ->
		t[e].heard = t[e].heard | b;
		if
		:: answer -> t[e].harm = t[e].harm | b
		:: else
		fi;
		if
		:: (t[e].heard & owed) == owed && !t[e].harm -> tell_delivered()
		:: else
		fi
	:: else
	fi
}

#ifdef BUG_SELF_ABORT
/* BUG: a participant is tired of waiting (rule R7). */
#define may_tire(b) (!calm && p[b].record == PREPARED)
inline tire(b) {
	printf("branch %d: aborts by itself\n", b);
	p[b].record = UNDONE
}
#endif

#ifdef BUG_VOLATILE_YES
/* BUG: a participant restarts, and had voted before its record was durable. */
#define may_restart(b) (!calm && p[b].soft)
inline restart(b) {
	printf("branch %d: restarts and has lost its record\n", b);
	p[b].record = UNKNOWN; p[b].soft = 0
}
#define may_sync(b) (p[b].soft)
inline sync(b) {
	printf("branch %d: its record is durable\n", b);
	p[b].soft = 0
}
#endif

#ifdef BUG_GIVE_UP
/* BUG: delivery is given up (rule R10). */
#define may_give_up(e) (t[e].drive == DELIVERING && t[e].mode == LEADING)
inline give_up(e) {
	printf("leader %d: gives up delivering\n", e);
	t[e].commits = 0; t[e].aborts = 0;
	release(e)
}
#endif

/* An operator ends a prepared branch by hand. */
#define may_meddle(b) (MEDDLING && !calm && p[b].record == PREPARED)
inline meddle(b, end) {
	printf("branch %d: an operator ends it by hand: %d\n", b, end);
	p[b].record = end
}

/* ---- the end ---- */

/* What older leaders sent has arrived by now, or is lost. */
inline bury(e) {
	t[e].proposal = NOTHING; t[e].behind = 0; t[e].omitted = 0;
	release(e);
	t[e].mode = BEFORE; t[e].leftout = 0; t[e].suspects = 0;
	t[e].prepares = 0; t[e].commits = 0; t[e].aborts = 0
}

/* Faults are over. From here on only what must happen does, each thing once, and
   when nothing more does, all must be well. */
#define may_calm(e) (!calm && t[e].mode == LEADING && epoch == e)
inline becalm(e) {
	printf("leader %d: stays; faults are over\n", e);
	calm = 1;
	p[1].fence = 0; p[2].fence = 0;
#if TERMS > 1
	if :: e != 1 -> bury(1) :: else fi;
	if :: e != 2 -> bury(2) :: else fi;
#endif
#if TERMS > 2
	if :: e != 3 -> bury(3) :: else fi;
#endif
	skip
}

#define PREPARE(e, b, c) \
	:: STEP { may_prepare(e, b, c) -> prepare(e, b, c, true); hear_vote(e, b, c); answer = 0 } \
	:: STEP { may_prepare(e, b, c) && p[b].record == UNKNOWN -> prepare(e, b, c, false); hear_vote(e, b, c); answer = 0 } \
	:: STEP { may_prepare(e, b, c) && may_lose_vote(e, b, c) -> prepare(e, b, c, true); answer = 0 } \
	:: STEP { may_prepare(e, b, c) && may_lose_vote(e, b, c) && p[b].record == UNKNOWN -> prepare(e, b, c, false); answer = 0 }

#define DELIVER(e, b) \
	:: STEP { may_commit(e, b) -> commit(e, b); hear_receipt(e, b); answer = 0 } \
	:: STEP { may_commit(e, b) && may_lose_receipt(e, b, DONE) -> commit(e, b); answer = 0 } \
	:: STEP { may_abort(e, b) -> abort(e, b); hear_receipt(e, b); answer = 0 } \
	:: STEP { may_abort(e, b) && may_lose_receipt(e, b, UNDONE) -> abort(e, b); answer = 0 } \
	:: STEP { may_scan(e, b) -> scan(e, b) } \
	:: STEP { may_end(e, b) -> end_orphan(e, b) }

#define SUBMIT(e, c) \
	:: STEP { may_submit(e, c) -> submit(e, c, 0) } \
	:: STEP { may_submit(e, c) && state == UNKNOWN && may_leave_early -> submit(e, c, 1) }

#define LEAD(e) \
	:: STEP { may_open(e) -> open(e) } \
	:: STEP { may_ask(e) -> ask(e) } \
	:: STEP { may_apply(e) -> apply(e) } \
	:: STEP { may_apply_behind(e) -> apply_behind(e) } \
	:: STEP { may_bounce(e) -> bounce(e) } \
	:: STEP { may_lose(e) -> halt(e) } \
	:: STEP { may_settle(e) -> resume(e, 0) } \
	:: STEP { may_settle(e) && t[e].behind && may_matter(e) -> resume(e, 1) } \
	:: STEP { may_withdraw(e) -> withdraw(e) } \
	:: STEP { may_log(e) -> log_receipts(e) } \
	:: STEP { may_calm(e) -> becalm(e) }

#if CONTENTS > 1
#define EACH(STEPS, e, b) STEPS(e, b, 0) STEPS(e, b, 1)
#define SUBMITS(e) SUBMIT(e, 0) SUBMIT(e, 1)
#else
#define EACH(STEPS, e, b) STEPS(e, b, 0)
#define SUBMITS(e) SUBMIT(e, 0)
#endif

#define TERM(e) \
	LEAD(e) SUBMITS(e) \
	EACH(PREPARE, e, 1) EACH(PREPARE, e, 2) \
	DELIVER(e, 1) DELIVER(e, 2)

#define FALL(e) :: STEP { may_fall(e) -> fall(e) }

active proctype decree() {
	/* Which branches only read, by content; the branches are alike. READS picks one of
	   the first three, so that a search can be had in parts. */
	if
#if !defined(READS) || READS == 0
	:: skip
#endif
#if !defined(READS) || READS == 1
	:: p[2].reads = 1
#endif
#if !defined(READS) || READS == 2
	:: p[1].reads = 1; p[2].reads = 1
#endif
#if CONTENTS > 1
	:: p[2].reads = 3
	:: p[1].reads = 1; p[2].reads = 2
#endif
	fi;
	do
	TERM(1)
#if TERMS > 1
	TERM(2)
#endif
#if TERMS > 2
	TERM(3)
#endif
	/* The last leader stays. */
#if FALLS && TERMS > 1
	FALL(1)
#endif
#if FALLS && TERMS > 2
	FALL(2)
#endif
#if MEDDLING
	:: STEP { may_meddle(1) -> meddle(1, DONE) }
	:: STEP { may_meddle(1) -> meddle(1, UNDONE) }
	:: STEP { may_meddle(2) -> meddle(2, DONE) }
	:: STEP { may_meddle(2) -> meddle(2, UNDONE) }
#endif
#ifdef BUG_SELF_ABORT
	:: STEP { may_tire(1) -> tire(1) }
	:: STEP { may_tire(2) -> tire(2) }
#endif
#ifdef BUG_VOLATILE_YES
	:: STEP { may_restart(1) -> restart(1) }
	:: STEP { may_sync(1) -> sync(1) }
#endif
#ifdef BUG_GIVE_UP
	:: STEP { may_give_up(1) -> give_up(1) }
	:: STEP { may_give_up(2) -> give_up(2) }
#endif
#ifdef BUG_NO_BARRIER
	:: STEP { may_open_late(1) -> open_late(1) }
	:: STEP { may_open_late(2) -> open_late(2) }
#if TERMS > 2
	:: STEP { may_open_late(3) -> open_late(3) }
#endif
#endif
	:: else -> break
	od;
	at_rest()
}
