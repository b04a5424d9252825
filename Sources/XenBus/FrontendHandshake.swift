/// A frontend's half of the way to Connected and back, as a value: it is shown the backend's state and says what to do.
///
/// It decides by levels, not by changes. The same state shown twice asks for nothing twice, and states that were never
/// seen because two writes merged do no harm. A frontend that finds traces of an earlier life in its own key first closes
/// that life (Closing, Closed), then begins again at Initialising; a backend that restarts is followed the same way.
public struct FrontendHandshake: Hashable, Sendable {
  public enum Phase: Hashable, Sendable {
    /// Nothing is shared; the key says Initialising, or will.
    case initialising
    /// Rings are shared and the key says so; the backend has not said Connected.
    case published
    case connected
    /// We asked to close, and the backend has not answered.
    case closing
    /// Our key says Closed; the pages are held until the backend has let go of them.
    case closed
  }

  public enum Action: Hashable, Sendable {
    case none
    /// Share rings, and write the keys and this state in one transaction.
    case publish(XenbusState)
    /// Read what the backend says of the device, begin to use it, and write Connected.
    case connect
    /// Stop using the device, then write Closed; everything stays shared.
    case stop
    /// Give back everything shared: the backend does not hold it any more.
    case release
    /// Write this state.
    case write(XenbusState)
  }

  public private(set) var phase: Phase
  private let publishedState: XenbusState
  /// An earlier life's state is still in our key.
  private var isStale: Bool
  /// After Closed, begin again although the backend went no further than Closed: it was us who closed.
  private var restarts: Bool
  /// After a backend that closes in place of connecting, begin again, once: it may have acted on what our key said before.
  private var triesAgain = true
  /// We failed on the offer that the backend still shows: only another one is worth trying.
  private var refusesOffer = false
  /// We have taken leave of the device.
  public private(set) var leaves = false
  /// Something is shared, which may only be given back when the backend has let go.
  private var holdsPages = false

  /// - Parameters:
  ///   - own: what our own key says at the start.
  ///   - publishedState: what a driver of this kind writes with its keys: Initialised (block) or Connected (network).
  public init(own: XenbusState, publishedState: XenbusState) {
    precondition(publishedState == .initialised || publishedState == .connected, "rings are published as one of these")
    self.publishedState = publishedState
    switch own {
    case .unknown, .initialising, .initWait: (phase, isStale, restarts) = (.initialising, false, false)
    case .closed: (phase, isStale, restarts) = (.closed, false, true)
    case .initialised, .connected, .closing, .reconfiguring, .reconfigured:
      (phase, isStale, restarts) = (.initialising, true, true)
    }
  }

  /// The user wants no more of the device: close, and stay closed.
  public mutating func leave() { leaves = true }

  /// Something failed on our side: close, and begin again only when the backend offers anew.
  public mutating func fail() { (phase, restarts, isStale, refusesOffer) = (.closing, false, false, true) }

  /// What is to be done now that the backend's key says `backend`. Show it again after doing it, until it says ``Action/none``.
  public mutating func observe(backend: XenbusState) -> Action {
    if backend != .initWait { refusesOffer = false }
    if leaves, phase != .closing, phase != .closed {
      phase = .closing
      return .write(.closing)
    }
    switch phase {
    case .initialising:
      if isStale {
        isStale = false
        return close()
      }
      switch backend {
      case .initWait:
        (phase, holdsPages) = (.published, true)
        return .publish(publishedState)
      // It believes in an earlier life of ours: end that first, since not every backend notices our Initialising.
      case .connected, .reconfiguring, .reconfigured: return close()
      // It failed before it could offer, and takes up only a frontend that has closed.
      case .closing: return stopOnce()
      case .unknown, .initialising, .initialised, .closed: return .none
      }
    case .published:
      switch backend {
      case .connected, .reconfiguring, .reconfigured:
        (phase, triesAgain) = (.connected, true)
        return .connect
      case .closing, .closed, .unknown: return stopOnce()
      case .initialising, .initWait, .initialised: return .none
      }
    case .connected:
      switch backend {
      case .connected, .reconfiguring, .reconfigured: return .none
      // A backend that is not connected any more has forgotten our rings, whichever way it went. One that has begun anew may
      // answer our Closed with its own, as Linux's does, and then waits for us.
      case .initialising: return stop(restarts: true)
      // It may yet take up the rings that our keys name, as Linux's does when it is bound again.
      case .initWait, .initialised: return close()
      case .closing, .closed, .unknown: return stop(restarts: false)
      }
    case .closing:
      switch backend {
      // It may still hold our pages, or be about to map them: what it does after its offer is for a state of ours from before.
      case .connected, .reconfiguring, .reconfigured: return .none
      case .initWait where holdsPages, .initialised where holdsPages: return .none
      case .unknown, .initialising, .initWait, .initialised, .closing, .closed: return stop(restarts: restarts)
      }
    case .closed:
      if holdsPages, backend.hasLetGo {
        holdsPages = false
        return .release
      }
      guard !holdsPages, !leaves, !refusesOffer, backend == .initWait || (restarts && backend == .closed) else {
        return .none
      }
      (phase, restarts) = (.initialising, false)
      return .write(.initialising)
    }
  }

  /// What the frontend waits for; nil when it is connected, or closed for good.
  public func waitsFor(backend: XenbusState) -> String? {
    switch phase {
    case .initialising: "the backend to offer its features (InitWait); it is \(backend)"
    case .published: "the backend to connect to our rings; it is \(backend)"
    case .connected: nil
    case .closing: "the backend to let go of our rings (Closing or Closed); it is \(backend)"
    case .closed where holdsPages && !backend.hasLetGo: "the backend to let go of our rings (Closed); it is \(backend)"
    case .closed where refusesOffer && !leaves:
      "the backend to take back the offer on which we failed, and to make another; it is \(backend)"
    case .closed: leaves ? nil : "the backend to offer the device again (InitWait); it is \(backend)"
    }
  }

  private mutating func close() -> Action {
    (phase, restarts) = (.closing, true)
    return .write(.closing)
  }

  private mutating func stopOnce() -> Action {
    defer { triesAgain = false }
    return stop(restarts: triesAgain)
  }

  private mutating func stop(restarts: Bool) -> Action {
    (phase, self.restarts) = (.closed, restarts)
    return .stop
  }
}

extension XenbusState {
  /// Whether a backend in this state holds nothing of its frontend's. In Closing it may: the toolstack writes that state
  /// for it, before it has done anything.
  fileprivate var hasLetGo: Bool {
    switch self {
    case .unknown, .initialising, .initWait, .closed: true
    case .initialised, .connected, .closing, .reconfiguring, .reconfigured: false
    }
  }
}
