// The README shows this file from here on; docs/check holds the two together.

import NetFront

/// Sends back whatever arrives, until its task is cancelled or its card is gone.
func echo(_ frontendPath: String, on platform: any Platform) async throws {
  let card = try await NetFrontCard.connect(to: frontendPath, on: platform)
  for await batch in card.received {
    for frame in try await card.transmit(batch) { print("frame \(frame.index) is not sent back: \(frame.error)") }
  }
  await card.close()
}
