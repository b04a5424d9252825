import Synchronization
import XenPlatform

/// What waits for one handle, in order, with a descriptor to sleep on.
final class Mailbox<Element: Sendable>: Sendable {
  let wakeup: Wakeup
  private let waiting = Mutex<[Element]>([])

  init() throws(ResourceError) { wakeup = try Wakeup() }

  func put(_ element: Element) {
    waiting.withLock { elements in
      elements.append(element)
      // Inside, or a taker could empty the mailbox first and leave the descriptor readable with nothing behind it.
      wakeup.signal()
    }
  }

  func take() -> Element? {
    waiting.withLock { elements in
      if elements.isEmpty { return nil }
      let element = elements.removeFirst()
      if elements.isEmpty { wakeup.clear() }
      return element
    }
  }
}
