/// A backend's half of the way to Connected and back, as a value: it is shown the frontend's state, and whether the
/// toolstack still wants the device, and says what to do.
///
/// It decides by levels, as ``FrontendHandshake`` does. InitWait is written only when the frontend holds no rings, so
/// that rings found after it are always fresh ones; a backend process that finds its own key beyond InitWait therefore
/// first has the frontend close what it shared with its predecessor, unless that has left the device on purpose for another
/// process to go on with.
public struct BackendHandshake: Hashable, Sendable {
  public enum Phase: Hashable, Sendable {
    /// Nothing is offered yet.
    case initialising
    /// Features are offered; the frontend has published nothing.
    case initWait
    case connected
    /// A predecessor serves no more and has left word of where the rings stand; the frontend has not noticed.
    case detached
    /// Such a device could not be taken up; it stays for somebody who can, as long as the frontend waits.
    case held
    /// One of us asked to close; the frontend has not closed yet.
    case closing
    case closed
    /// Finished: the device is to be forgotten.
    case removed
  }

  public enum Action: Hashable, Sendable {
    case none
    /// Write the features and InitWait in one transaction.
    case offer
    /// Map the frontend's rings, write the device's details and Connected in one transaction, begin to serve.
    case connect
    /// Map the frontend's live rings and go on serving where the predecessor stopped.
    case resume
    /// Look at what the frontend's keys say now, then write Reconfigured; everything stays connected.
    case reconfigure
    /// Stop serving and let go of everything of the frontend's, then write this state.
    case disconnect(XenbusState)
    /// Write this state.
    case write(XenbusState)
    /// Forget the device.
    case remove
  }

  public private(set) var phase = Phase.initialising
  /// A predecessor's state is still in our key, so the frontend may hold rings that are nobody's.
  private var isStale: Bool
  /// After the frontend has closed, offer again without waiting for it to begin: it was us who closed.
  private var restarts: Bool
  /// It was our side that closed for a failure: Closed is written only when the frontend has taken notice, so that
  /// whatever it begins afterwards is a new beginning.
  private var failed = false
  private var leaves = false
  /// A predecessor was killed after its offer, so what the frontend shares may have been made for that one.
  private var inheritsOffer: Bool
  /// Our key says Reconfigured, in answer to the frontend's Reconfiguring.
  private var isReconfigured = false
  /// A frontend that says Closing goes on using its device until it says Closed.
  private let servesUntilClosed: Bool

  /// - Parameters:
  ///   - own: what our own key says at the start.
  ///   - isDetached: whether a predecessor has left word of where the rings of a connected device stand.
  ///   - servesUntilClosed: whether a frontend in Closing still uses its rings (``BackendDriver/servesUntilClosed``).
  public init(own: XenbusState, isDetached: Bool = false, servesUntilClosed: Bool = false) {
    self.servesUntilClosed = servesUntilClosed
    inheritsOffer = own == .initWait
    switch own {
    case .connected where isDetached: (phase, isStale, restarts) = (.detached, true, true)
    case .unknown, .initialising, .initWait: (isStale, restarts) = (false, false)
    case .closed: (phase, isStale, restarts) = (.closed, false, true)
    case .initialised, .connected, .closing, .reconfiguring, .reconfigured: (isStale, restarts) = (true, true)
    }
  }

  /// Close the device, and forget it when the frontend has closed.
  public mutating func leave() { leaves = true }

  /// Something failed on our side: close, and offer again only when the frontend begins again. Once, also when it does not: where
  /// the rings were made for an offer of which we know nothing, ours may suit both.
  public mutating func fail() {
    restarts = inheritsOffer && phase == .connected
    (phase, isStale, failed, inheritsOffer) = (.closing, false, true, false)
  }

  /// What the predecessor was serving cannot be served now: leave the device to a process that can.
  public mutating func hold() { phase = .held }

  /// The offer cannot be made yet; nobody has been told anything.
  public mutating func postpone() { phase = .initialising }

  /// What kept a device from being taken up may have ended: try again.
  public mutating func retry() { if phase == .held { phase = .detached } }

  /// What is to be done now that the frontend's key says `frontend`. Show it again after doing it, until it says
  /// ``Action/none``.
  ///
  /// - Parameters:
  ///   - frontend: nil when there is no such directory any more.
  ///   - isOnline: false when the toolstack has withdrawn the device (`online` is 0).
  ///   - isPlugged: false when the device must not be connected yet, since its hotplug script has not finished
  ///     (`hotplug-status`). Once it is connected, that does not matter any more.
  ///   - mayOffer: false while an offer is postponed (``postpone()``).
  public mutating func observe(
    frontend: XenbusState?, isOnline: Bool, isPlugged: Bool = true, mayOffer: Bool = true
  ) -> Action {
    // Without its frontend's directory a device is a zombie's.
    let isWanted = isOnline && !leaves && frontend != nil
    let frontend = frontend ?? .unknown
    if phase == .detached || phase == .held {
      if isWanted, frontend.mayHoldRings, frontend != .closing {
        guard phase == .detached else { return .none }
        (phase, isReconfigured) = (.connected, false)
        return .resume
      }
      // Nobody serves it: as after a crash.
      phase = .initialising
    }
    switch phase {
    case .detached, .held: preconditionFailure("either has just become another phase")
    case .initialising:
      guard isWanted else {
        phase = .closing
        return .write(.closing)
      }
      // Rings of an earlier life: they must go before fresh ones can be told from them.
      if isStale, frontend.mayHoldRings {
        (phase, isStale) = (.closing, false)
        return .write(.closing)
      }
      return mayOffer ? offer() : .none
    case .initWait:
      guard isWanted else {
        phase = .closing
        return .write(.closing)
      }
      switch frontend {
      // Connected without Initialised: the two writes merged, or this kind of frontend writes only the latter.
      case .initialised, .connected:
        guard isPlugged else { return .none }
        (phase, isReconfigured) = (.connected, false)
        return .connect
      case .closing:
        phase = .closing
        return .write(.closing)
      case .unknown, .initialising, .initWait, .closed, .reconfiguring, .reconfigured: return .none
      }
    case .connected:
      inheritsOffer = false
      switch frontend {
      case .initialised, .connected, .reconfiguring, .reconfigured:
        guard !isWanted else { return reconfigure(frontend) }
        phase = .closing
        return .write(.closing)
      case .closing:
        phase = .closing
        return servesUntilClosed ? .write(.closing) : .disconnect(.closing)
      // It closed, or began again, without our seeing the states between; or its directory is gone.
      case .closed, .unknown, .initialising, .initWait:
        (phase, restarts) = (.closed, frontend == .unknown)
        return .disconnect(.closed)
      }
    case .closing:
      if frontend.mayHoldRings { return .none }
      if failed, isWanted, frontend == .initialising || frontend == .initWait { return .none }
      (phase, failed) = (.closed, false)
      return .disconnect(.closed)
    case .closed:
      if !isWanted {
        phase = .removed
        return .remove
      }
      switch frontend {
      case .initialising, .initWait: return offer()
      // Whoever has rubbish for a state waits for us to begin.
      case .closed where restarts, .unknown where restarts: return offer()
      case .unknown, .closed, .initialised, .connected, .closing, .reconfiguring, .reconfigured: return .none
      }
    case .removed: return .none
    }
  }

  /// What the backend waits for; nil when it is connected or removed.
  public func waitsFor(frontend: XenbusState?, isPlugged: Bool = true) -> String? {
    let frontend = frontend ?? .unknown
    return switch phase {
    case .initWait where !isPlugged && (frontend == .initialised || frontend == .connected):
      "its hotplug script to finish (hotplug-status)"
    case .initialising, .initWait: "the frontend to share its rings (Initialised or Connected); it is \(frontend)"
    case .connected, .detached, .removed: nil
    case .held: "a start of its backend with what it was connected with; the frontend goes on waiting"
    case .closing: "the frontend to close; it is \(frontend)"
    case .closed: "the frontend to begin again (Initialising); it is \(frontend)"
    }
  }

  /// A frontend that changes what it wants of a connected device says Reconfiguring, and Connected when it has seen
  /// Reconfigured. One whose Reconfiguring nobody has seen has changed it all the same: its keys are watched.
  private mutating func reconfigure(_ frontend: XenbusState) -> Action {
    switch frontend {
    case .reconfiguring where !isReconfigured:
      isReconfigured = true
      return .reconfigure
    case .connected where isReconfigured:
      isReconfigured = false
      return .write(.connected)
    default: return .none
    }
  }

  private mutating func offer() -> Action {
    (phase, isStale, restarts) = (.initWait, false, false)
    return .offer
  }
}

extension XenbusState {
  /// Whether a frontend in this state may have rings that its backend can reach.
  fileprivate var mayHoldRings: Bool {
    switch self {
    case .initialised, .connected, .closing, .reconfiguring, .reconfigured: true
    case .unknown, .initialising, .initWait, .closed: false
    }
  }
}
