import NetFront

/// Puts an ``IPv4Host`` behind a card for async programs: batches in, batches out.
///
/// While answers wait for room in the ring, what arrives waits in the card, in bounded memory.
public struct Responder {
  private let card: NetFrontCard
  private var host: IPv4Host

  /// - Parameter card: connected.
  public init(_ card: NetFrontCard, network: IPv4Network) {
    self.card = card
    host = IPv4Host(card, network: network)
  }

  public var counts: IPv4Host.Counts { host.counts }

  /// Answers what arrives until the card is closed, or removed, or the task cancelled.
  public mutating func run() async throws {
    for await batch in card.received {
      let answers = answers(to: batch)
      do { host.answersWereRefused(try await card.transmit(answers).count) } catch NetFrontError.notConnected {
        return
      } catch is CancellationError { return }
    }
  }

  private mutating func answers(to batch: NetFrameBatch) -> NetFrameBatch {
    var answers = NetFrameBatch()
    for index in batch.indices {
      var frame = Array(batch[index])
      frame.finish(batch.metadata(at: index))
      if case .answer(let answer) = host.take(frame) { answers.append(answer.span) }
    }
    return answers
  }
}

extension IPv4Host {
  /// - Parameter card: connected; the host has its address.
  public init(_ card: NetFrontCard, network: IPv4Network) {
    self.init(mac: card.macAddress ?? MACAddress(InlineArray(repeating: 0)), network: network)
  }
}
