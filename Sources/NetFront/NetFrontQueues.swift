import NetIf
import XenRing

/// A connection's queues: two rings each, the event channels of all, and the control ring where there is one.
///
/// The two directions are stored apart, so that a frame that was received may be answered before the next one is looked
/// at. Each of them is accessed once a frame sent, and once a poll.
final class NetFrontQueues {
  @exclusivity(unchecked) private var storedTransmits: OwnedArray<NetFrontTransmit>
  // A check for each frame that is sent would be a tenth of what a short one costs.
  private var transmits: OwnedArray<NetFrontTransmit> {
    // Safe: one thread uses us, and no code but a transmit's own runs during an access.
    @inline(__always) _read { yield unsafe storedTransmits }
    @inline(__always) _modify { yield unsafe &storedTransmits }
  }
  private var receives: OwnedArray<NetFrontReceive>
  @exclusivity(unchecked) private var storedEvents: NetFrontEvents
  private var events: NetFrontEvents {
    // Safe: as above; the platform knows nothing of us.
    @inline(__always) _read { yield unsafe storedEvents }
    @inline(__always) _modify { yield unsafe &storedEvents }
  }
  private let control: NetFrontControl?
  let count: Int
  /// The longest frame that each has pages for, in bytes.
  let maxByteCount: Int
  /// The longest frame that may be sent as it is, in bytes.
  let maxFrameByteCount: Int
  /// What may be sent unfinished.
  var offloads: NetOffloads

  /// - Parameter events: channels for each queue.
  init(
    transmits: consuming OwnedArray<NetFrontTransmit>, receives: consuming OwnedArray<NetFrontReceive>,
    events: NetFrontEvents, control: NetFrontControl?, maxFrameByteCount: Int, offloads: NetOffloads
  ) {
    (self.maxFrameByteCount, self.offloads) = (maxFrameByteCount, offloads)
    count = transmits.count
    precondition(count > 0 && receives.count == count && events.tx.count == count, "each queue has both its parts")
    var maxByteCount = NetIf.maxFrameByteCount
    for index in 0..<count { maxByteCount = min(maxByteCount, transmits[index].maxByteCount) }
    self.maxByteCount = maxByteCount
    unsafe storedTransmits = transmits
    self.receives = receives
    unsafe storedEvents = events
    self.control = control
  }

  /// Shows the backend the pages that it may fill. It is not notified: nobody listens yet.
  func postReceivePages() { for index in 0..<count { _ = receives[index].pushAndCheckNotify() } }

  /// How many more pages the backend could be given to fill, in the queue of this number.
  func missingReceivePageCount(_ number: Int) -> Int { receives[number].missingPageCount }

  /// The next poll shows them to the backend.
  func add(_ pages: consuming GrantedPages, to number: Int) { receives[number].add(pages) }

  /// What became of a frame that was to be sent.
  enum SendOutcome { case sent, busy, other }

  /// Puts a frame that need not be cut, and is neither too short nor too long: most frames.
  ///
  /// - Returns: other for any other one, and for one that cannot be finished.
  func send(_ frame: Span<UInt8>, _ metadata: NetPacketMetadata) -> SendOutcome {
    guard metadata.segmentation == nil, frame.count >= NetIf.headerByteCount, frame.count <= maxFrameByteCount else {
      return .other
    }
    do throws(NetFrontError) { try put(frame, NetFrontTxForm(frame, metadata, offloads: offloads)) } catch {
      if case .busy = error { return .busy }
      return .other
    }
    return .sent
  }

  /// The caller has checked the frame's length.
  @inline(__always) func put(_ frame: Span<UInt8>, _ form: NetFrontTxForm) throws(NetFrontError) {
    // Each flow always the same, so that its order stays.
    try transmits[count > 1 ? NetFlow.queue(for: frame, of: count) : 0].put(frame, form)
  }

  /// Cuts a frame, and puts all of its segments or none.
  ///
  /// - Parameters:
  ///   - scratch: as long as the frame at least; each segment is made there, and copied once more.
  ///   - limit: how long a segment may be.
  func put(
    _ packet: Span<UInt8>, _ segmentation: NetPacketMetadata.Segmentation, by scratch: inout [UInt8],
    limit: Int
  ) throws(NetFrontError) {
    let segmenter: NetSegmenter
    do throws(NetSegmentationFault) { segmenter = try NetSegmenter(packet, segmentation) } catch {
      throw .unsegmentable(error)
    }
    let queue = NetFlow.queue(for: packet, of: count)
    // The first one is as long as any.
    let (frameCount, byteCount) = (segmenter.frameCount, segmenter.byteCount(of: 0))
    guard byteCount <= limit else { throw .tooLong(byteCount: byteCount, limit: limit) }
    let capacity = transmits[queue].capacity(for: byteCount)
    guard frameCount <= capacity else { throw .tooManySegments(count: frameCount, limit: capacity) }
    guard transmits[queue].hasRoom(forFrames: frameCount, of: byteCount) else { throw .busy }
    for index in 0..<frameCount {
      var bytes = scratch.mutableSpan
      segmenter.write(index, of: packet, to: &bytes)
      try transmits[queue].put(scratch.span.extracting(..<segmenter.byteCount(of: index)), NetFrontTxForm())
    }
  }

  /// Says something of a group, if there is room.
  func put(_ change: NetFrontMulticast.Change) -> Bool { transmits[0].put(change) }

  /// The next answer to what was said of a group; nil when there is none.
  func nextMulticastResult() -> (change: NetFrontMulticast.Change, result: NetTxResult)? {
    transmits[0].nextMulticastResult()
  }

  /// From now on events come at the next response to what was sent.
  func takeEachTxEvent() { for index in 0..<count { transmits[index].holdsOffEvents = false } }

  /// From now on there may be room before frames that arrive.
  func takeHeadroom() { for index in 0..<count { receives[index].takeHeadroom() } }

  func push() {
    for index in 0..<count where transmits[index].pushAndCheckNotify() { events.notifyTx(index) }
  }

  /// Takes back the pages of what was sent, hands every frame that is there to `body` and its pages back to the backend,
  /// and asks for events at the next responses, unless the caller goes on looking.
  func poll(looks: Bool, _ body: (borrowing NetFrontFrame) -> Void) throws(DeviceError) -> Int {
    events.take()
    for index in 0..<count { try transmits[index].reap(looks: looks) }
    var received = 0
    for index in 0..<count {
      let (frameCount, notifies) = try receives[index].poll(looks: looks, body)
      received += frameCount
      if notifies { events.notifyRx(index) }
    }
    if !looks { events.rearm() }
    return received
  }

  /// Whether a poll would find something.
  var hasWork: Bool {
    for index in 0..<count where transmits[index].hasWork || receives[index].hasWork { return true }
    return false
  }

  /// Asks the backend for hashing.
  ///
  /// - Returns: false without a control ring.
  func ask(for hashing: NetHashConfiguration) -> Bool {
    guard let control else { return false }
    if control.begin(hashing) { events.notifyControl() }
    return true
  }

  /// Has the backend map the pages of all queues, where there is a control ring and it does that.
  func askForMapping() {
    guard let control else { return }
    let lists = (0..<count).map { number in
      transmits[number].pageReferences.map { NetIfGrantMapping(gref: $0, flags: NetIfGrantMapping.readOnlyFlag) }
        + receives[number].pageReferences.map { NetIfGrantMapping(gref: $0) }
    }
    if control.begin(mapping: lists) { events.notifyControl() }
  }

  /// How many pages the backend has mapped.
  var mappedGrantCount: Int { control?.mappedGrantCount ?? 0 }

  /// Whether the backend is being asked for something.
  var awaitsControl: Bool { control?.isAsking ?? false }

  /// Goes on with what the backend has answered.
  ///
  /// - Returns: what came of the hashing that it was asked for; nil as long as that is not known.
  func pollControl() throws(DeviceError) -> Result<NetHashConfiguration, NetHashFault>? {
    guard let progress = try control?.poll() else { return nil }
    if progress.notifies { events.notifyControl() }
    return progress.result
  }

  /// Counts what the backend has answered so far, before the rest counts as dropped. At the end of a connection it does
  /// not matter any more that a ring may be broken.
  func settle() { for index in 0..<count { try? transmits[index].reap(looks: true) } }

  /// Wakes the backend whatever its event indices say.
  func kick() { events.notifyAll() }

  var descriptor: CInt { events.descriptor }

  /// Whether each queue has: which one a frame takes is not known before.
  func hasRoom(for byteCount: Int, isSegmented: Bool) -> Bool {
    for index in 0..<count where !transmits[index].hasRoom(for: byteCount, isSegmented: isSegmented) { return false }
    return true
  }

  var inFlightCount: Int {
    var sum = 0
    for index in 0..<count { sum += transmits[index].inFlightCount }
    return sum
  }

  func inFlightCount(of number: Int) -> Int { transmits[number].inFlightCount }

  /// Of the queue with this number.
  func statistics(of number: Int) -> NetStatistics {
    var statistics = NetStatistics()
    statistics.tx = transmits[number].counts
    statistics.rx = receives[number].counts
    statistics.rxGSOChecksumFixups = receives[number].checksumFixups
    statistics.txSegmented = transmits[number].segmentedCount
    statistics.rxSegmented = receives[number].segmentedCount
    statistics.txRing = transmits[number].ringStatistics
    statistics.rxRing = receives[number].ringStatistics
    return statistics
  }
}
