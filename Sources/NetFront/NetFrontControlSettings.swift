import NetIf

/// What a card asks of its backend over the control ring.
extension NetFrontDevice {
  /// Says how the backend is to hash what it sends us, and which queue each packet is to come on (io/netif.h, "Control
  /// messages"): as soon as one is connected, and again whenever one is. Later polls find its answers, and ``hashing`` what
  /// has come of it.
  ///
  /// A packet's hash comes with it (``NetFrontFrame/metadata``).
  ///
  /// - Parameter configuration: one without an algorithm leaves the choice to the backend again.
  public func setHashing(_ configuration: NetHashConfiguration) {
    hashing = .pending(configuration)
    askForHashing()
  }

  func askForHashing() {
    guard let wish = hashing.wish, let queues else { return }
    hashing = queues.ask(for: wish) ? .pending(wish) : .failed(wish, .notOffered)
  }

  /// How many pages of the card's the backend keeps mapped, and copies as memory (``NetFeatures/staticGrants``).
  public var mappedGrantCount: Int { queues?.mappedGrantCount ?? 0 }
}
