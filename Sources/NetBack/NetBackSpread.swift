import NetIf

/// Spreads the frames of an end that a card's queues share over these queues, each flow to the same one.
///
/// The first queue, which asks the end for frames, has it. It costs a frame one copy more than an end for each queue does:
/// which queue it belongs to is known only when it is there.
struct NetBackSpread: ~Copyable {
  /// Where the end puts its frames; empty between two turns.
  private var line: FrameQueue
  /// Each queue's; the first one's is not used.
  private let mailboxes: [NetBackMailbox]
  /// The queue of each frame in the line.
  private var queues: [UInt8] = []

  /// - Parameter mailboxes: one for each queue, 2 to 64.
  init(to mailboxes: [NetBackMailbox], for takes: NetGuestAgreement) {
    precondition((2...64).contains(mailboxes.count), "several queues, and no more than there may be")
    line = NetBackReceive.makeLine(for: takes)
    self.mailboxes = mailboxes
    queues.reserveCapacity(line.capacity)
  }

  mutating func ask(_ end: any NetworkEnd, now: Uptime) {
    line.now = now
    end.give(to: &line)
  }

  /// Hands all frames over; `own` gets those of the first queue.
  mutating func distribute(into own: inout FrameQueue, now: Uptime) {
    guard !line.isEmpty else { return }
    var found: UInt64 = 0
    for index in 0..<line.count {
      let queue = line[index].withSpan { NetFlow.queue(for: $0, of: mailboxes.count) }
      queues.append(UInt8(queue))
      found |= 1 << UInt64(queue)
      if queue == 0 { own.put(line[index]) }
    }
    for queue in 1..<mailboxes.count where found & 1 << UInt64(queue) != 0 {
      mailboxes[queue].put(line, for: queue, of: queues, now: now)
    }
    queues.removeAll(keepingCapacity: true)
    line.removeFirst(line.count)
  }

  /// What the line itself had no room for.
  var dropCount: UInt64 { line.dropCount }
}
