"""Sits at a terminal: runs a command on one, answers what it shows, and prints what was seen.

terminal.py SCRIPT COMMAND… where SCRIPT is JSON, a list of [wait for this text, then do this]; what is
done is {"type": TEXT}, {"size": [ROWS, COLUMNS]} or {"signal": NAME}. Prints JSON."""

import fcntl, json, os, pty, select, signal, struct, sys, termios, time

acts = json.loads(sys.argv[1])
child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
before = termios.tcgetattr(terminal)
seen, mark, deadline, late = b"", 0, time.monotonic() + 60, False
while True:
    while acts and (at := seen.find(acts[0][0].encode(), mark)) >= 0:
        mark = at + len(acts[0][0])
        act = acts.pop(0)[1]
        time.sleep(0.2)
        if "type" in act:
            os.write(terminal, act["type"].encode())
        if "size" in act:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *act["size"], 0, 0))
        if "signal" in act:
            os.kill(child, getattr(signal, act["signal"]))
    ready, _, _ = select.select([terminal], [], [], 1)
    if time.monotonic() > deadline:
        late = True
        os.kill(child, signal.SIGKILL)
        break
    if ready:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
status = os.waitpid(child, 0)[1]
print(json.dumps({
    "seen": seen.decode(errors="replace"), "code": os.waitstatus_to_exitcode(status), "late": late,
    "left": [act[0] for act in acts],
}))
