import Synchronization
import XenPlatform

/// What waits for one handle, in order, with a descriptor to sleep on.
final class Mailbox<Element: Hashable & Sendable>: Sendable {
  let wakeup: Wakeup
  private let waiting = Mutex<[Element]>([])

  init() throws(ResourceError) { wakeup = try Wakeup() }

  func put(_ element: Element) { waiting.withLock { put(element, behind: &$0) } }

  /// One that waits already is not put again.
  func putUnlessWaiting(_ element: Element) {
    waiting.withLock { elements in if !elements.contains(element) { put(element, behind: &elements) } }
  }

  private func put(_ element: Element, behind elements: inout [Element]) {
    elements.append(element)
    // With the lock held, or a taker could empty the mailbox first and leave the descriptor readable with nothing behind it.
    wakeup.signal()
  }

  /// A process that was killed gets nothing more.
  func take(by process: LoopbackProcess) -> Element? {
    waiting.withLock { elements in
      if elements.isEmpty { return nil }
      let element = process.isKilled ? nil : elements.removeFirst()
      if element == nil { elements = [] }
      if elements.isEmpty { wakeup.clear() }
      return element
    }
  }
}
