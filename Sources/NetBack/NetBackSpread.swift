import NetIf

/// Spreads frames over a card's queues: as the frontend has set it over the control ring or, as long as it has not, each flow
/// to the same one.
///
/// The first queue has it, when it asks an end for frames that all queues share; and each queue, when there is a control
/// ring. It costs a frame one copy more than an end for each queue does: which queue it belongs to is known only when it is
/// there.
struct NetBackSpread: ~Copyable {
  /// Where the end puts its frames; empty between two turns.
  private var line: FrameQueue
  /// Which queue's it is, of how many.
  private let number: Int
  private let queueCount: Int
  /// Each queue's; its own is not used. None when there is but one queue.
  private let mailboxes: [NetBackMailbox]
  private let steering: NetBackSteering
  private var current = NetBackSteering.Copy()
  /// The queue of each frame in the line.
  private var queues: [UInt8] = []

  /// - Parameters:
  ///   - number: of the queue that has it.
  ///   - mailboxes: one for each queue, 2 to 64; none for a card of one queue.
  init(of number: Int, to mailboxes: [NetBackMailbox], for connection: NetBackConnection) {
    precondition(mailboxes.count != 1 && mailboxes.count <= 64, "several queues, and no more than there may be")
    precondition(number >= 0 && number < max(1, mailboxes.count), "one of them")
    line = NetBackReceive.makeLine(for: connection.takes)
    (self.number, queueCount, self.mailboxes) = (number, max(1, mailboxes.count), mailboxes)
    steering = connection.steering
    queues.reserveCapacity(line.capacity)
  }

  /// Looks whether the frontend has set something else.
  ///
  /// - Returns: whether it says where each packet goes.
  mutating func refresh() -> Bool {
    steering.refresh(&current)
    return current.steering != nil
  }

  mutating func ask(_ end: any NetworkEnd, now: Uptime) {
    line.now = now
    end.give(to: &line)
  }

  /// Has what the guest sent handed to the end, whose answers are spread as well.
  mutating func deliver(_ transmit: inout NetBackTransmit, to end: any NetworkEnd, now: Uptime) {
    line.now = now
    transmit.deliver(to: end, answering: &line)
  }

  /// Hands all frames over; `own` gets those of this queue.
  mutating func distribute(into own: inout FrameQueue, now: Uptime) {
    guard !line.isEmpty else { return }
    var found: UInt64 = 0
    for index in 0..<line.count {
      let queue = settleQueue(of: index)
      queues.append(UInt8(queue))
      found |= 1 << UInt64(queue)
      if queue == number { own.put(line[index]) }
    }
    found &= ~(1 << UInt64(number))
    while found != 0 {
      let queue = found.trailingZeroBitCount
      mailboxes[queue].put(line, for: queue, of: queues, now: now)
      found &= found - 1
    }
    queues.removeAll(keepingCapacity: true)
    line.removeFirst(line.count)
  }

  /// Which queue a frame takes; where the frontend says so, it comes with its hash.
  private mutating func settleQueue(of index: Int) -> Int {
    guard let steering = current.steering else {
      return line[index].withSpan { NetFlow.queue(for: $0, of: queueCount) }
    }
    let hash = line[index].withSpan { steering.hash(of: $0) }
    line.setHash(hash, at: index)
    return steering.queue(for: hash)
  }

  /// What the line itself had no room for.
  var dropCount: UInt64 { line.dropCount }
}
