import Glibc
import Logging
import Synchronization
import XenPlatform

/// What works on a ``BusThread`` beside its bus: it is called from there and nowhere else.
public protocol BusThreadClient: AnyObject {
  /// Does what there is to do; called whenever the thread wakes, after its bus has been polled if that had anything to do.
  /// Never waits. `.stopped` ends the thread.
  ///
  /// - Parameter looks: whether the thread goes on looking at ``hasWork`` when there is nothing to do. Then no other end need be asked
  ///   for events; before the thread sleeps it calls once more, without this.
  func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome

  /// Whether there is something to do that none of the descriptors tells of: a look at memory.
  var hasWork: Bool { get }

  /// Appends what to sleep on besides the bus; asked before every sleep.
  func appendDescriptors(to list: inout [CInt])

  /// How much it has done so far, counted in whatever way. What wakes the thread again and again without that this changes, as
  /// a peer's storm of events does, is then listened to less and less, down to once in a tenth of a second (XSA-391). Nil for
  /// whoever does not count.
  var workCount: UInt64? { get }

  /// Whether nothing is under way any more, so that the bus may take leave of its devices. Asked after each poll once the
  /// thread has been told to end.
  var isIdle: Bool { get }

  /// The bus has let go of everything, and nothing is polled any more.
  func ended()
}

extension BusThreadClient {
  public var workCount: UInt64? { nil }
  public var hasWork: Bool { false }
}

/// A ``Bus`` on a thread of its own.
///
/// The thread sleeps until the store, a queue, the client or ``wake()`` has something for it, and ends when it is told to
/// or when the last reference to this goes.
public final class BusThread: Sendable {
  private let state: BusThreadState
  /// Nil once joined.
  private let handle: Mutex<pthread_t?>

  /// Starts the thread.
  ///
  /// - Parameters:
  ///   - queueHost: who polls the queues of backends; by default each has a thread of its own.
  ///   - name: of the thread, as tools show it; its first 15 bytes count.
  ///   - sleep: how the thread waits.
  ///   - setUp: registers drivers, and makes what is to work beside the bus, if anything is. It runs here, before the
  ///     thread does.
  /// - Throws: what `setUp` threw as `.store`; `.resource` when the process has no thread or descriptor left.
  public init(
    on platform: any Platform, queueHost: any QueueHost = ThreadPerQueue(), log: Logger = Logger(label: "xenbus"),
    name: String = "xenbus", sleep: AdaptiveSleep = AdaptiveSleep(),
    setUp: @Sendable (Bus) throws(XenstoreError) -> (any BusThreadClient)?
  ) throws(DeviceError) {
    let loop: BusLoop
    do throws(ResourceError) { state = try BusThreadState() } catch { throw .resource("\(error)") }
    do throws(XenstoreError) {
      let bus = try Bus(on: platform, queueHost: queueHost, log: log)
      loop = BusLoop(bus, try setUp(bus), state, sleep: sleep)
    } catch { throw .store(error) }
    do throws(ResourceError) { handle = Mutex(try loop.start(name: name)) } catch { throw .resource("\(error)") }
  }

  /// Ends the thread without waiting for it.
  deinit {
    end(within: 0)
    handle.withLock { handle in
      if let handle { pthread_detach(handle) }
    }
  }

  /// Has the client polled soon. From any thread.
  public func wake() { state.wakeup.signal() }

  /// Has the thread stop where it is, because the domain is about to be suspended: from then until ``resume()`` it polls neither
  /// its bus nor its client.
  ///
  /// - Parameter whenPaused: is called from the thread when it has stopped; also when it has been told to end.
  public func pause(_ whenPaused: @escaping @Sendable () -> Void) {
    let hasEnded = state.pause.withLock { pause in
      switch pause {
      case .ended: return true
      case .asked(let others):
        pause = .asked {
          others()
          whenPaused()
        }
      case .none, .standing, .over: pause = .asked(whenPaused)
      }
      return false
    }
    if hasEnded { whenPaused() } else { wake() }
  }

  /// Has the thread go on after ``pause(_:)``, when that has called: the domain was suspended and has been resumed, so it begins with
  /// ``Bus/resume()``. Without a pause before, that comes too late for a directory that the toolstack has made anew and that
  /// the bus has already found: its device is then another one, for which nothing waits.
  public func resume() {
    let former = state.pause.withLock { pause in
      let former = pause
      if case .ended = pause {} else { pause = .over }
      return former
    }
    if case .asked(let whenPaused) = former { whenPaused() }
    wake()
  }

  /// Tells the thread to end: when its client is idle and the other ends have let go of every device, or when the time
  /// is up. Does not wait for that, and only the first call counts.
  ///
  /// - Parameter seconds: zero lets go of everything at once, as when a process ends; the states stay as they are. May be
  ///   infinite.
  public func end(within seconds: Double) {
    // Three hundred years at most, so that any number is an instant.
    let deadline = Uptime(nanoseconds: Uptime.now.nanoseconds + UInt64(min(max(0, seconds), 1e10) * 1e9))
    state.deadline.withLock { if $0 == nil { $0 = deadline } }
    wake()
  }

  /// Waits for the thread, which has been told to end. A second call returns at once.
  public func join() {
    // Taken out first: of two who wait, one does.
    let handle = handle.withLock { $0.take() }
    if let handle { pthread_join(handle, nil) }
  }
}

/// What the thread and its owner share.
private final class BusThreadState: Sendable {
  let wakeup: Wakeup
  /// When to end at the latest; nil before ``BusThread/end(within:)``.
  let deadline = Mutex<Uptime?>(nil)
  /// Whether the thread is to stop for a suspension, and what has come of that.
  let pause = Mutex(Pause.none)

  enum Pause {
    case none
    case asked(@Sendable () -> Void)
    case standing
    /// The domain has been resumed.
    case over
    /// There is no thread any more.
    case ended
  }

  init() throws(ResourceError) { wakeup = try Wakeup() }
}

/// The thread's own part.
private final class BusLoop: ThreadWork {
  private var bus: Bus?
  private let client: (any BusThreadClient)?
  private let state: BusThreadState
  private var sleep: AdaptiveSleep

  init(_ bus: Bus, _ client: (any BusThreadClient)?, _ state: BusThreadState, sleep: AdaptiveSleep) {
    (self.bus, self.client, self.state, self.sleep) = (bus, client, state, sleep)
  }

  func run() {
    if let bus { run(bus) }
    bus = nil
    let pause = state.pause.withLock { pause in
      defer { pause = .ended }
      return pause
    }
    if case .asked(let whenPaused) = pause { whenPaused() }
    client?.ended()
  }

  private func run(_ bus: Bus) {
    var isLeaving = false
    var busIsDue = true
    let own = [state.wakeup.descriptor] + bus.descriptors
    var descriptors = own
    var waits: [pollfd] = []
    var wakes = ClientWakes()
    var isWokenByClient = false
    /// When the bus wants to be polled whatever happens.
    var retriesAt: Uptime?
    while true {
      if standStill() {
        bus.resume()
        busIsDue = true
      }
      let busOutcome = busIsDue ? bus.poll() : .idle
      let now = Uptime.now
      let outcome = client?.poll(bus, now: now, looks: sleep.looks) ?? .idle
      if outcome == .stopped { return }
      wakes.note(client?.workCount, isWokenByClient: isWokenByClient, now: now)
      let deadline = state.deadline.withLock { $0 }
      if let deadline {
        if now >= deadline || (isLeaving && bus.isEmpty) { return }
        if !isLeaving, client?.isIdle != false {
          isLeaving = true
          busIsDue = true
          bus.close()
          continue
        }
      }
      descriptors.removeSubrange(own.count...)
      if wakes.heldUntil == nil { client?.appendDescriptors(to: &descriptors) }
      waits.removeAll(keepingCapacity: true)
      for descriptor in descriptors { waits.append(pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)) }
      let isDue = busOutcome == .more || outcome == .more
      if case .idleUntil(let instant) = busOutcome { retriesAt = instant } else if busIsDue { retriesAt = nil }
      let timeout = isDue ? 0 : milliseconds(outcome, [deadline, wakes.heldUntil, retriesAt])
      _ = sleep.wait(for: &waits, timeout: timeout) { client?.hasWork ?? false }
      isWokenByClient = waits[own.count...].contains { $0.revents != 0 }
      if waits[0].revents != 0 { state.wakeup.clear() }
      busIsDue =
        busOutcome == .more || waits[1..<own.count].contains { $0.revents != 0 }
        || retriesAt.map { $0 <= Uptime.now } == true
    }
  }

  /// Waits here for the end of a pause, if one was asked for, or for the end of the thread.
  ///
  /// - Returns: whether the domain has been resumed.
  private func standStill() -> Bool {
    while true {
      let next = state.pause.withLock { pause in
        let next = pause
        switch pause {
        case .asked: pause = .standing
        case .over: pause = .none
        case .none, .standing, .ended: break
        }
        return next
      }
      switch next {
      case .none, .ended: return false
      case .over: return true
      case .asked(let whenPaused): whenPaused()
      case .standing:
        if state.deadline.withLock({ $0 }) != nil { return false }
        var wait = [pollfd(fd: state.wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
        _ = Wakeup.wait(for: &wait, timeout: -1)
        state.wakeup.clear()
      }
    }
  }

  /// Until the client's instant or the first of others.
  private func milliseconds(_ outcome: PollOutcome, _ others: [Uptime?]) -> CInt {
    var instant: Uptime?
    if case .idleUntil(let wanted) = outcome { instant = wanted }
    for case let other? in others { instant = min(other, instant ?? other) }
    return instant?.millisecondsFromNow ?? -1
  }
}

/// What wakes the thread for its client: when that has done nothing for many wakes in a row, its descriptors do not wake the
/// thread for a while.
private struct ClientWakes {
  private(set) var heldUntil: Uptime?
  private var spurious = SpuriousEvents()
  private var workCount: UInt64 = 0

  /// The client has been polled.
  mutating func note(_ count: UInt64?, isWokenByClient: Bool, now: Uptime) {
    guard let count else { return }
    if count != workCount {
      (heldUntil, spurious, workCount) = (nil, SpuriousEvents(), count)
    } else if let end = heldUntil {
      if end <= now { heldUntil = spurious.hold(now) }
    } else if isWokenByClient {
      heldUntil = spurious.hold(now)
    }
  }
}
